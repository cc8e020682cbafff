"""The .pth reader: every kind of file that PyTorch writes, and malicious and damaged ones."""

import builtins
import io
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fuzz_pth
from fastfcn_jax.convert import pth
from fastfcn_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
CONTAINERS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def save(path, content, is_zip=True, **options):
    torch.save(content, path, _use_new_zipfile_serialization=is_zip, **options)
    return path


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        wanted = tensor.detach()
        if wanted.dtype == torch.bfloat16:
            assert tensors[name].dtype.name == "bfloat16"
            wanted, tensors[name] = wanted.float(), tensors[name].astype(np.float32)
        np.testing.assert_array_equal(tensors[name], wanted.numpy(), strict=True)


def network():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2))
    nn.init.normal_(layers[1].running_mean)
    return layers


@CONTAINERS
def test_plain_state_dict(tmp_path, is_zip):
    weights = network().state_dict()
    result = pth.read(save(tmp_path / "a.pth", weights, is_zip))
    assert_same(result.tensors, weights)
    assert result.kind == (
        "plain state dict (zip)" if is_zip else "plain state dict (legacy stream)"
    )
    assert result.stubbed == result.others == ()


@CONTAINERS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_protocols(tmp_path, is_zip, protocol):
    weights = network().state_dict()
    path = save(tmp_path / "a.pth", weights, is_zip, pickle_protocol=protocol)
    assert_same(pth.read(path).tensors, weights)


@CONTAINERS
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_dtypes(tmp_path, is_zip, dtype):
    weights = OrderedDict(w=(torch.randn(3, 5) * 3).to(dtype), scalar=torch.tensor(1).to(dtype))
    assert_same(pth.read(save(tmp_path / "a.pth", weights, is_zip)).tensors, weights)


@CONTAINERS
def test_views_that_share_a_storage(tmp_path, is_zip):
    base = torch.randn(4, 6, 5)
    weights = OrderedDict(
        whole=base,
        transposed=base.transpose(0, 2),
        slice=base[1:3, ::2, 1:4],
        channels_last=torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        expanded=torch.randn(1, 3).expand(4, 3),
        parameter=nn.Parameter(torch.randn(3)),
    )
    tensors = pth.read(save(tmp_path / "a.pth", weights, is_zip)).tensors
    assert_same(tensors, weights)
    assert all(tensor.flags.c_contiguous and tensor.flags.aligned for tensor in tensors.values())


def test_module_prefixes_are_removed(tmp_path):
    weights = network().state_dict()
    prefixed = OrderedDict({f"module.module.{name}": v for name, v in weights.items()})
    assert_same(pth.read(save(tmp_path / "a.pth", {"state_dict": prefixed})).tensors, weights)


def test_prefixes_are_removed_as_often_as_all_names_have_them(tmp_path):
    weights = {"module.module.a": torch.zeros(3), "module.b": torch.zeros(3)}
    assert list(pth.read(save(tmp_path / "a.pth", weights)).tensors) == ["module.a", "b"]


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "\udcff", "module." * 700_000, "a" * 201])
def test_unprintable_and_huge_names_are_refused(tmp_path, name):
    """(Removing 700 000 prefixes one by one took 20 seconds.)"""
    path = save(tmp_path / "a.pth", {name: torch.zeros(3), f"{name}b": torch.zeros(3)})
    assert_refused_cheaply(path, "its weights have names that are not printable or too long")


def test_names_of_code_are_shown_without_control_characters(tmp_path):
    write_archive(tmp_path / "a.pth", {"a/data.pkl": b"\x80\x02cos\n\x1b[2J\n)R."})
    with pytest.raises(UserError) as caught:
        pth.read(tmp_path / "a.pth")
    assert r"a pickled os \x1b[2J; save" in str(caught.value)


def test_mmengine_training_file(tmp_path):
    """As written by `Runner.save_checkpoint`, with logs and optimizer."""
    from mmengine.logging import MessageHub

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    hub = MessageHub.get_instance("test_pth")
    hub.update_scalar("train/loss", 1.5)
    hub.update_info("iter", 3)
    content = {
        "meta": {"cfg": "model = dict()", "dataset_meta": {"classes": ("a",)}, "seed": 1},
        "state_dict": model.state_dict(),
        "message_hub": hub.state_dict(),
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [{"last_step": 3}],
    }
    path = save(tmp_path / "iter_3.pth", content)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # the file is of the kind that PyTorch itself refuses
    result = pth.read(path)
    assert_same(result.tensors, model.state_dict())
    assert result.kind == "mmengine training file (zip)"
    assert "mmengine.logging.history_buffer HistoryBuffer" in result.stubbed


def test_official_training_file(tmp_path):
    """The `.pth.tar` of 2019: a legacy stream whose best score is a NumPy scalar."""
    model = network()
    content = {
        "epoch": 80,
        "state_dict": model.state_dict(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.1).state_dict(),
        "best_pred": np.float64(0.51),
    }
    result = pth.read(save(tmp_path / "model_best.pth.tar", content, is_zip=False))
    assert_same(result.tensors, model.state_dict())
    assert result.kind == "official training file (legacy stream)"
    assert any("multiarray" in name for name in result.stubbed)


def test_legacy_file_with_views_of_storages(tmp_path):
    """PyTorch 0.x could write a storage as (name, offset, size) within another."""
    whole = torch.FloatStorage(range(10))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if value is whole:
                return "storage", torch.FloatStorage, "7", "cpu", 10, ("view", 2, 5)
            return None

    stream = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, stream, protocol=2)
    Pickler(stream, protocol=2).dump({"w": forged(whole, 1, (3,), (1,))})
    pickle.dump(["7"], stream, protocol=2)
    stream.write(struct.pack("<q", 10) + np.arange(10, dtype=np.float32).tobytes())
    path = tmp_path / "a.pth"
    path.write_bytes(stream.getvalue())
    np.testing.assert_array_equal(pth.read(path).tensors["w"], np.array([3, 4, 5], np.float32))


class _Call:
    """Pickles as a call of `function` with these arguments."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def forged(storage, offset, shape, strides):
    """A tensor with arbitrary, unchecked fields."""
    return _Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, {})


# Malicious files.


@CONTAINERS
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_file_is_not_run(tmp_path, is_zip, protocol):
    call = _Call(exec, "import builtins; builtins.was_executed = True")
    content = {"state_dict": network().state_dict(), "meta": call}
    path = save(tmp_path / "a.pth", content, is_zip, pickle_protocol=protocol)
    result = pth.read(path)
    assert not hasattr(builtins, "was_executed")
    assert any(name.endswith("exec") for name in result.stubbed)
    assert len(result.tensors) == len(content["state_dict"])


HOSTILE_TENSORS = {
    "shape beyond the storage": (0, (5, 4), (4, 1)),
    "offset beyond the storage": (17, (1,), (1,)),
    "stride beyond the storage": (0, (2, 2), (16, 1)),
    "a billion elements": (0, (1_000_000_000,), (1,)),
    "a billion elements by stride 0": (0, (1_000_000_000,), (0,)),
    "more elements than 64 bits count": (0, (1 << 40, 1 << 40), (0, 0)),
    "negative offset": (-4, (2,), (1,)),
    "negative stride": (4, (2,), (-1,)),
    "negative shape": (0, (-2,), (1,)),
    "shape and strides of different lengths": (0, (4, 4), (1,)),
    "text for a size": (0, ("4",), (1,)),
    "a bool for a size": (0, (True,), (1,)),
    "a float for a size": (0, (4.0,), (1,)),
    "an empty tensor": (0, (0, 3), (1, 1)),
}


@CONTAINERS
@pytest.mark.parametrize("what", HOSTILE_TENSORS)
def test_tensors_out_of_bounds(tmp_path, is_zip, what):
    storage = torch.arange(16.0).storage()
    path = save(tmp_path / "a.pth", {"w": forged(storage, *HOSTILE_TENSORS[what])}, is_zip)
    assert_refused_cheaply(path, "a.pth: (tensor w|its tensors together|it holds no weights)")


def assert_refused_cheaply(path, message):
    """Refused with one sentence that starts with the path, using little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            pth.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path))
    assert peak < 16 * path.stat().st_size + (4 << 20)


def test_header_of_a_billion_elements(tmp_path):
    """A legacy stream whose storage claims more than the file holds."""
    path = save(tmp_path / "a.pth", {"w": torch.arange(16.0)}, is_zip=False)
    data = path.read_bytes()
    at = len(data) - 16 * 4 - 8
    assert struct.unpack_from("<q", data, at) == (16,)
    # ... in the storage's own header only, then in the description as well.
    path.write_bytes(data[:at] + struct.pack("<q", 1_000_000_000) + data[at + 8 :])
    assert_refused_cheaply(path, "has another size than its tensors")
    described = data[:at].replace(b"K\x10", b"J\x00\xca\x9a\x3b")
    assert described != data[:at]
    path.write_bytes(described + struct.pack("<q", 1_000_000_000) + data[at + 8 :])
    assert_refused_cheaply(path, "cut short")


EXHAUSTING = {
    "memo index of two billion": b"r\xff\xff\xff\x7f.",
    "bytes of an exabyte": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "integer of 2 GB": b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"1.",
    "nothing but marks": b"(" * 250_000 + b".",
    "tuples 250 000 deep as a key": b")" + b"\x85" * 250_000 + b"N\x73.",
    "doubling tuples as a key": b")" + b"2\x86" * 1000 + b"Ns.",
    "more taken than put": b"0" * 1000 + b".",
    "memo entry that is not there": b"h\x07.",
    "frame of a terabyte": b"\x95" + struct.pack("<Q", 1 << 40) + b".",
    "more instructions than the limit": b"N" * 310_000 + b".",
    "no end": b"}",
    "text of doubling tuples as a name": b")" + b"2\x86" * 1000 + b"\x8c\x01a\x93.",
    "integer of megabytes as a key, 20 000 times": (
        b"\x8b" + struct.pack("<i", 2_000_000) + b"\x01" * 2_000_000 + b"q\x000"
    )
    + b"h\x00Ns" * 20_000
    + b".",
    "20 000 pairs, named 20 000 times": (
        b"ccollections\nOrderedDict\nq\x01](" + b"NN\x86" * 20_000 + b"eq\x00"
    )
    + b"h\x01h\x00\x85R0" * 20_000
    + b".",
    "tensors of a type 10 000 deep": (
        b"ctorch._tensor\n_rebuild_from_type_v2\nq\x01" + b"(h\x01N" * 10_000 + b")"
    )
    + b"Nt" * 10_000
    + b"R.",
    "unknown instructions": b"\xff\xfe\xfd.",
}


@pytest.mark.slow
def test_pickles_that_exhaust(tmp_path):
    """In a separate process: the type checks in this one cost more than the reading."""
    for number, body in enumerate(EXHAUSTING.values()):
        write_archive(tmp_path / f"{number}.zip.pth", {"a/data.pkl": b"\x80\x02}" + body})
    paths = sorted(map(str, tmp_path.glob("*.pth")))
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, check=True
    )
    *messages, peak = run.stdout.splitlines()
    assert len(messages) == len(paths) == len(EXHAUSTING)
    for path, message in zip(paths, messages, strict=True):
        assert message.startswith(f"{path}: ")
        assert len(message) < len(path) + 120
    assert int(peak) < 100 << 20


READ_ALL = """
import sys, tracemalloc
from fastfcn_jax.convert import pth
from fastfcn_jax.errors import UserError
tracemalloc.start()
for path in sys.argv[1:]:
    try:
        pth.read(path)
        print("was read")
    except UserError as error:
        print(error)
print(tracemalloc.get_traced_memory()[1])
"""


def write_archive(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def read_archive(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# Damaged files and files of other kinds.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"accuracy: 79.12\n", "not a PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>", "web page"),
        (b"<html>", "web page"),
        (b"\x1f\x8b\x08" + bytes(600), "compressed archive"),
        (bytes(257) + b"ustar" + bytes(400), "tar archive"),
        (bytes(1000), "not a PyTorch file"),
        (b"PK\x03\x04" + bytes(100), "cut short or damaged"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
        (pickle.dumps(_Call(exec, "1/0")), "not one that torch.save wrote"),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert_refused_cheaply(path, message)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        pth.read(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="this is a folder"):
        pth.read(tmp_path)


@CONTAINERS
def test_truncation_anywhere(tmp_path, is_zip):
    path = save(tmp_path / "a.pth", network().state_dict(), is_zip)
    data = path.read_bytes()
    for length in range(1, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            pth.read(path)


def test_damaged_weights_are_noticed(tmp_path):
    weights = OrderedDict(w=torch.full((100,), 1.5))
    path = save(tmp_path / "a.pth", weights)
    data = path.read_bytes()
    at = data.index(torch.full((100,), 1.5).numpy().tobytes())
    path.write_bytes(data[: at + 6] + b"\x40" + data[at + 7 :])
    with pytest.raises(UserError, match="wrong checksum"):
        pth.read(path)


def test_files_without_checksums_are_read(tmp_path):
    weights = network().state_dict()
    torch.serialization.set_crc32_options(False)
    try:
        save(tmp_path / "a.pth", weights)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(pth.read(tmp_path / "a.pth").tensors, weights)


def test_archives_of_another_kind(tmp_path):
    path = save(tmp_path / "a.pth", network().state_dict())
    entries = read_archive(path)
    cases = {
        "compressed or encrypted": (entries, zipfile.ZIP_DEFLATED),
        "written on a big-endian": ({**entries, "a/byteorder": b"big"}, zipfile.ZIP_STORED),
        "TorchScript": ({**entries, "a/constants.pkl": b""}, zipfile.ZIP_STORED),
        "not written by torch.save": ({"readme.txt": b"hello"}, zipfile.ZIP_STORED),
        "around model.pth; unpack": ({"model.pth": path.read_bytes()}, zipfile.ZIP_STORED),
        "its part a/data/0 is missing": (
            {name: data for name, data in entries.items() if name != "a/data/0"},
            zipfile.ZIP_STORED,
        ),
        "tensor 0.weight reaches beyond": (
            {**entries, "a/data/0": entries["a/data/0"][:-4]},
            zipfile.ZIP_STORED,
        ),
    }
    for message, (content, compression) in cases.items():
        write_archive(path, content, compression)
        assert_refused_cheaply(path, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "state_dict": {}}, "it holds no weights"),
        ([torch.zeros(3)], "no dictionary of weights"),
        ({"state_dict": {3: torch.zeros(3)}}, "not named by strings"),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        pth.read(save(tmp_path / "a.pth", content))


def test_whole_pickled_model(tmp_path):
    with pytest.raises(UserError, match=r"a pickled torch\.nn\.modules\.container Sequential"):
        pth.read(save(tmp_path / "a.pth", network()))


def test_entries_that_are_not_tensors_are_reported(tmp_path):
    weights = OrderedDict(w=torch.zeros(3), extra=7, sparse=torch.eye(3).to_sparse())
    result = pth.read(save(tmp_path / "a.pth", weights))
    assert list(result.tensors) == ["w"]
    assert result.others == ("extra", "sparse")


@pytest.mark.slow
def test_short_fuzz():
    outcomes = fuzz_pth.fuzz(900, seed=1)
    assert outcomes["read"] + outcomes["refused"] == 900
    assert outcomes["refused"] > 400  # some mutations do damage
    assert outcomes["read"] > 50  # ... and some do not
