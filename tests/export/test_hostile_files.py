"""Malicious or invalid exported files are refused with one sentence, using little memory."""

import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata, readers

SAID = {
    "size": [32, 48],
    "dataset": {"name": "two", "class_names": ["a", "b"], "palette": [[0, 0, 0], [255, 0, 9]]},
    "config": {"model": {"lineage": "mmseg"}},
}


def changed(value, *keys):
    """`SAID` with another value under these keys."""
    content = json.loads(json.dumps(SAID))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


ABSURD = {
    "pixels": [changed([1 << 14, 1 << 13], "size"), changed([0, 48], "size")],
    "two whole numbers": [
        changed([32], "size"),
        changed([32.0, 48], "size"),
        changed([True, 48], "size"),
        changed(None, "size"),
    ],
    "test scale": [
        {**SAID, "size": "free"},
        {**changed({"test_scale": [1 << 14, 1 << 13]}, "config", "data"), "size": "free"},
        {**changed({"test_scale": [-1, 48]}, "config", "data"), "size": "free"},
    ],
    "its precision": [changed("int4", "precision"), changed(["int8"], "precision")],
    "list of 1 to 255 classes": [
        changed([], "dataset", "class_names"),
        changed(["a"] * 256, "dataset", "class_names"),
        changed("ab", "dataset", "class_names"),
        changed(None, "dataset"),
    ],
    "not printable": [
        changed(["a", "\x1b[2J"], "dataset", "class_names"),
        changed(["a", 2], "dataset", "class_names"),
        changed("n" * 201, "dataset", "name"),
    ],
    "one colour": [
        changed([[0, 0, 0]], "dataset", "palette"),
        changed([[0, 0, 0], [256, 0, 0]], "dataset", "palette"),
        changed([[0, 0, 0], [0.5, 0, 0]], "dataset", "palette"),
        changed([[0, 0, 0], [0, 0]], "dataset", "palette"),
    ],
    "no known lineage": [changed("caffe", "config", "model", "lineage"), changed([], "config")],
    "not a dictionary": [[SAID], 3],
}


@pytest.mark.parametrize("reason", ABSURD)
def test_absurd_descriptions(reason):
    assert metadata.read(json.dumps(SAID)) == SAID
    for content in ABSURD[reason]:
        with pytest.raises(ValueError, match=reason):
            metadata.read(json.dumps(content))


def test_endless_descriptions():
    with pytest.raises(ValueError, match="larger than 1024 KiB"):
        metadata.read(json.dumps(SAID) + " " * (1 << 20))
    with pytest.raises(ValueError, match="nested too deeply"):
        metadata.read("[" * 100_000)


def npy(shape: tuple[int, ...], data: bytes = b"", dtype: str = "<f4") -> bytes:
    """A part of an archive that claims `shape`, whatever its contents."""
    part = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(part, header)
    return part.getvalue() + data


def assert_refused_cheaply(path: Path, reason: str):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=reason) as caught:
            readers.load(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * path.stat().st_size + (4 << 20)
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: not a file that this program exported (")


@pytest.fixture
def path(tmp_path, jax_is_there):
    return tmp_path / "m.stablehlo"


@pytest.fixture(scope="module")
def jax_is_there():
    """Makes JAX allocate its own memory first, so that it does not count as a file's."""
    jax.export.export(jax.jit(abs))(1.0).serialize()


def test_compressed_parts_are_not_unpacked(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program.npy", npy((100_000_000,), bytes(100_000_000), "|u1"))
    assert path.stat().st_size < 200_000
    assert_refused_cheaply(path, "its parts are compressed")


@pytest.mark.parametrize(
    "part",
    [npy((1 << 30,)), npy((1 << 40, 1 << 40)), npy((3,), bytes(11)), npy((1,), bytes(8), "|O")],
)
def test_parts_hold_what_they_claim(path, part):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program.npy", part)
    assert_refused_cheaply(path, "another size than it claims")


def test_one_part_under_a_thousand_names(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program.npy", npy((100_000,), bytes(400_000)))
        archive.filelist *= 1000
    assert_refused_cheaply(path, "its parts are larger than the file")


def write_program(path: Path, call) -> None:
    """A file with a program that contains `call`, which JAX itself would refuse to export."""
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(call.__name__)]
    images = jax.ShapeDtypeStruct((1, 32, 48, 3), np.uint8)
    program = jax.export.export(jax.jit(call), platforms=["cpu"], disabled_checks=unchecked)
    with path.open("wb") as file:
        np.savez(
            file,
            program=np.frombuffer(program(images).serialize(), np.uint8),
            metadata=np.frombuffer(json.dumps(SAID).encode(), np.uint8),
        )


@pytest.mark.parametrize("name", ["xla_python_cpu_callback", "shape_assertion_of_mine"])
def test_a_program_that_calls_the_machine_is_not_run(path, name):
    def call(images):
        return jax.ffi.ffi_call(name, jax.ShapeDtypeStruct((1,), np.uint8))(images)

    call.__name__ = name
    write_program(path, call)
    with pytest.raises(UserError, match=f"calls functions of the machine: custom_call @{name}"):
        readers.load(path)


def test_a_program_that_does_something_else_is_refused(path):
    def double(images):
        return {"labels": images[..., 0], "logits": images + images}

    write_program(path, double)
    with pytest.raises(UserError, match=r"m\.stablehlo: does not run \("):
        readers.load(path)(np.zeros((32, 48, 3), np.uint8))  # it takes no weights
    answers = {"labels": np.zeros((1, 32, 48), np.uint8), "logits": np.zeros((1, 4, 6, 3))}
    exported = readers.Exported(path, lambda images: answers, SAID)
    with pytest.raises(UserError, match=r"gives labels .* not those of 2 classes for 1x32x48"):
        exported(np.zeros((32, 48, 3), np.uint8))
    answers["logits"] = np.zeros((1, 4, 6, 2), np.float32)
    assert exported(np.zeros((32, 48, 3), np.uint8)).shape == (32, 48)
