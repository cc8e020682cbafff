"""Paddle's files: read as Paddle writes them; hostile and damaged ones answered in one sentence."""

import json
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
import small

from fastfcn_jax.config import experiment
from fastfcn_jax.convert import (
    backbone,
    backbone_names,
    convert,
    fit,
    mmseg_names,
    paddleseg_names,
    pdparams,
)
from fastfcn_jax.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = json.loads((GOLDEN / "backbone_names.json").read_text())


def save(path: Path, tensors, protocol: int = 4) -> Path:
    """Pickles arrays as `paddle.save` pickles a state dict: with Paddle's own names beside them."""
    own = {name: f"tensor_{i}" for i, name in enumerate(tensors)}
    path.write_bytes(pickle.dumps({**tensors, "StructuredToParameterName@@": own}, protocol))
    return path


def test_the_other_tests_write_as_paddle_does(tmp_path):
    content = pickle.loads((GOLDEN / "paddle.pdparams").read_bytes())
    names = content.pop("StructuredToParameterName@@")
    assert names.keys() == content.keys()
    path = save(tmp_path / "a.pdparams", content)
    ours = [op.name for op, *_ in pickletools.genops(path.read_bytes())]
    assert ours == [
        op.name for op, *_ in pickletools.genops((GOLDEN / "paddle.pdparams").read_bytes())
    ]


def test_a_file_that_paddle_wrote():
    """By Paddle 3.3.1's own `paddle.save` (`make_backbone_names.py`)."""
    read = pdparams.read(GOLDEN / "paddle.pdparams")
    shapes = {
        **{"0.weight": (4, 3, 3, 3), "0.bias": (4,)},
        **{f"1.{leaf}": (4,) for leaf in ("weight", "bias", "_mean", "_variance")},
        **{"2.weight": (4, 2), "2.bias": (2,)},
    }
    assert {name: array.shape for name, array in read.tensors.items()} == shapes
    for name, array in read.tensors.items():
        expected = np.arange(array.size, dtype=np.float32).reshape(array.shape)
        np.testing.assert_array_equal(array, expected, err_msg=name, strict=True)
    assert read.stubbed == read.others == ()


@pytest.mark.parametrize("protocol", [2, 3, 4])  # those that `paddle.save` takes
def test_arrays_of_every_kind(tmp_path, protocol):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(3, 4, 5))
    tensors = {
        "float32": wide.astype(np.float32),
        "float16": wide.astype(np.float16),
        "columns first": np.asfortranarray(wide),
        "scalar": np.array(3, np.int64),
        "big-endian": wide.astype(">f4"),
        "flags": wide > 0,
    }
    path = save(tmp_path / "a.pdparams", tensors, protocol)
    read = pdparams.read(path).tensors
    for name, array in tensors.items():
        expected = array.astype(array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(read[name], expected, err_msg=name, strict=True)
    # Tensors that are not of a state dict are written as pairs, with Paddle's own name before them.
    pairs = {name: ("tensor_0", array) for name, array in tensors.items()}
    path.write_bytes(pickle.dumps(pairs, protocol))
    assert pdparams.read(path).tensors.keys() == tensors.keys()


class Command:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps({"w": np.ones(3), "x": Command()}))
    read = pdparams.read(path)
    assert read.stubbed == (f"{os.mkdir.__module__} mkdir",)
    assert read.others == ("x",)
    assert os.listdir() == ["a.pdparams"]


def content_of(array) -> bytes:
    return pickle.dumps({"w": array}, 4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04", "this is a zip archive"),
        (content_of(np.ones(3))[:-20], "pickle exhausted|not enough|expected"),
        (content_of(np.ones(3)).replace(b"K\x03\x85", b"K\x04\x85"), "another size than its shape"),
        (content_of(np.array(["text", None], object)), "array w has a malformed shape or type"),
        (content_of(np.ones(3, np.complex64)), "array w has a malformed shape or type"),
        (pickle.dumps([np.ones(3)]), "no dictionary of weights"),
        (pickle.dumps({("a", 1): np.ones(3)}), "holds no weights"),
    ],
)
def test_other_files_are_named(tmp_path, content, says):
    path = tmp_path / "a.pdparams"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        pdparams.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def renamed(network: str) -> dict[str, str]:
    """Our names by those of a real network; its shapes follow."""
    names = {name: np.array(i) for i, name in enumerate(NAMES[network])}
    own = backbone_names.to_mmseg_names(names)
    order = list(NAMES[network])
    return {order[int(i)]: name for name, i in own.items()}


@pytest.mark.parametrize(
    ("network", "changes", "pairs"),
    [
        (
            "paddleseg ResNet50_vd",
            {"average_downsample": True},
            {
                "conv1_2._batch_norm._variance": "stem.4.running_var",
                "bb_2_5.conv1._conv.weight": "layer3.5.conv2.weight",
                "bb_0_0.short._conv.weight": "layer1.0.downsample.1.weight",
                "bb_3_0.short._batch_norm._mean": "layer4.0.downsample.2.running_mean",
            },
        ),
        (
            "paddleclas ResNet50_vd",
            {"average_downsample": True},
            {
                "stem.2.bn.weight": "stem.7.weight",
                "blocks.3.short.conv.weight": "layer2.0.downsample.1.weight",
                "blocks.12.conv2.bn._mean": "layer3.5.bn3.running_mean",
                "blocks.13.conv0.conv.weight": "layer4.0.conv1.weight",
            },
        ),
        (
            "paddleclas ResNet50",
            {"stem": "plain"},
            {
                "stem.0.conv.weight": "conv1.weight",
                "blocks.3.short.bn.bias": "layer2.0.downsample.1.bias",
                "blocks.15.conv1.conv.weight": "layer4.2.conv2.weight",
            },
        ),
        (
            "mmpretrain resnet50_v1d",
            {"average_downsample": True},
            {
                "stem.1.conv.weight": "stem.3.weight",
                "layer1.0.downsample.0.weight": "layer1.0.downsample.1.weight",
                "layer2.0.downsample.2.running_var": "layer2.0.downsample.2.running_var",
            },
        ),
    ],
)
def test_names_of_real_networks(network, changes, pairs):
    """Every name becomes one of ours of the same shape, at full width."""
    names = renamed(network)
    assert {theirs: names[theirs] for theirs in pairs} == pairs
    model = small.config("psp", "jpu").model
    model.update(base_width=64, **changes)
    template = fit.template(model, 2)
    wanted = {
        mmseg_names.torch_name(path, template): leaf.shape
        for path, leaf in template.items()
        if path[1] == "backbone"
    }
    found = {}
    for theirs, name in names.items():
        shape = tuple(NAMES[network][theirs])
        shape = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape
        found[f"backbone.{name}"] = shape
    assert found == wanted


def narrow(network: str, changes: dict) -> dict[str, np.ndarray]:
    """A narrow state dict under a real network's names."""
    model = small.config("psp", "jpu", **changes).model
    tensors = mmseg_names.from_flax(small.variables(model, 2))
    return {theirs: tensors[f"backbone.{name}"] for theirs, name in renamed(network).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("paddleclas ResNet50_vd", {"average_downsample": True}),
        ("paddleclas ResNet50", {"stem": "plain"}),
        ("paddleseg ResNet50_vd", {"average_downsample": True}),
    ],
)
def test_backbones_load_whole(tmp_path, network, changes):
    tensors = narrow(network, changes)
    path = save(tmp_path / "a.pdparams", {**tensors, "fc.weight": np.zeros((8, 1000), np.float32)})
    model = small.config("psp", "jpu", **changes).model
    loaded = backbone.load(path, model)
    assert loaded.notes == []
    wanted = small.variables(model, 2)
    for kind in ("params", "batch_stats"):
        mine, theirs = loaded.variables[kind]["backbone"], wanted[kind]["backbone"]
        assert mine.keys() == theirs.keys()
        for module in ("layer4_2", "layer2_0"):
            for layer, leaves in theirs[module].items():
                for leaf, value in leaves.items():
                    np.testing.assert_array_equal(mine[module][layer][leaf], value)


def test_a_backbone_alone_is_no_model_and_a_model_has_a_backbone(tmp_path):
    changes = {"average_downsample": True}
    own = narrow("paddleseg ResNet50_vd", changes)
    whole = {f"backbone.{name}": tensor for name, tensor in own.items()}
    others = [name for name in NAMES["paddleseg FastFCN"] if not name.startswith("backbone.")]
    whole |= {name: np.zeros(2, np.float32) for name in others}
    path = save(tmp_path / "model.pdparams", whole)
    assert backbone.load(path, small.config("psp", "jpu", **changes).model).notes == []
    alone = save(tmp_path / "alone.pdparams", own)
    with pytest.raises(UserError, match="holds a backbone without a segmentation head"):
        convert.convert(alone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paddlesegs_fastfcn_has_our_names_and_shapes():
    """At full width, by name and shape: nothing is missing and nothing left over."""
    theirs = NAMES["paddleseg FastFCN"]
    ours = paddleseg_names.to_mmseg_names(theirs)
    assert all(paddleseg_names.from_mmseg_name(ours[name]) == name for name in theirs)
    biased = [n for n in theirs if n.endswith("_conv.bias")]
    shapes = {ours[n]: tuple(shape) for n, shape in theirs.items() if n not in biased}
    template = fit.template(experiment.load("paddleseg_fastfcn_ade20k").model, 150)
    wanted = {}
    for path, leaf in template.items():
        shape = leaf.shape
        if len(shape) == 4:  # Paddle's linear layers are (inputs, outputs), as ours
            shape = (shape[3], shape[2], *shape[:2])
        wanted[mmseg_names.torch_name(path, template)] = shape
    assert shapes == wanted
