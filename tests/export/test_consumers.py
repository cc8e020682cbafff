"""The programs of docs/export.md, each where this package cannot be imported."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import small
from PIL import Image
from safetensors import safe_open

import fastfcn_jax
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.export import export, readers
from fastfcn_jax.weights import hub

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
SIZE = (64, 96)
INFO = datasets.info("cityscapes", "")
# OpenVINO would report each import to its makers, so what it reports with is missing too.
WITHOUT = (
    "import sys; sys.modules.update(fastfcn_jax=None, openvino_telemetry=None); "
    "exec(open(sys.argv[1]).read())"
)


def program(file: str) -> str:
    """The program on the page that opens this file."""
    return next(text for text in PROGRAMS if f'"{file}' in text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A narrow model and a photograph, under the names of the page; `exported` adds files."""
    path = tmp_path_factory.mktemp("user")
    config = small.config("psp", "jpu", backbone="resnet18")
    config.data.root = "/home/someone/cityscapes"
    card = model_folder.model_card(config, INFO, {})
    model_folder.save_model(path / "run", small.variables(config.model, 19), card)
    scene = street_scene.Scene(np.random.default_rng(1), SIZE).draw()[0]
    Image.fromarray(scene).save(path / "photo.png")
    return path


def exported(folder: Path, name: str) -> Path:
    """The model as this file, or as a folder of the hub; written once."""
    path = folder / name
    if not path.exists() and name == "hub":
        hub.write(folder / "run", path, licence="mit")
    elif not path.exists():
        export.export(folder / "run", str(path), SIZE, path.suffix[1:], licence="mit")
    return path


def run(folder: Path, file: str) -> str:
    (folder / "consumer.py").write_text(program(file))
    command = [sys.executable, "-c", WITHOUT, "consumer.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openvino_takes_over_what_the_onnx_file_says(folder):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs OpenVINO")
    exported(folder, "model.onnx")
    (folder / "labels.png").unlink(missing_ok=True)
    (folder / "convert.py").write_text(program('model.onnx"), "model.xml'))
    subprocess.run([sys.executable, "-c", WITHOUT, "convert.py"], cwd=folder, check=True)
    said = run(folder, 'model.xml")\nsaid')
    photo = np.asarray(Image.open(folder / "photo.png"))
    expected = readers.load(folder / "model.onnx")(photo)
    written = Image.open(folder / "labels.png")
    np.testing.assert_array_equal(np.asarray(written), expected)
    assert said.strip() == str([INFO.class_names[k] for k in np.unique(expected)])


@pytest.mark.parametrize("name", ["model.onnx", "model.stablehlo", "model.tflite"])
def test_a_program_labels_a_photograph(folder, name):
    if name == "model.tflite" and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow")
    exported(folder, name)
    (folder / "labels.png").unlink(missing_ok=True)
    said = run(folder, name)
    photo = np.asarray(Image.open(folder / "photo.png"))
    expected = readers.load(folder / name)(photo)
    written = Image.open(folder / "labels.png")
    np.testing.assert_array_equal(np.asarray(written), expected)
    np.testing.assert_array_equal(np.asarray(written.convert("RGB")), INFO.palette[expected])
    assert said.strip() == str([INFO.class_names[k] for k in np.unique(expected)])


def test_weights_alone_are_read_with_their_names(folder):
    exported(folder, "model.safetensors")
    said = run(folder, "model.safetensors")
    assert said.startswith(str(list(INFO.class_names)))
    assert "not in the file: (pixels - mean) / std [123.675, 116.28, 103.53]" in said
    loaded = model_folder.load_model(folder / "run").variables
    loaded["params"].pop("auxiliary_head"), loaded["batch_stats"].pop("auxiliary_head")
    count = sum(w.size for tree in loaded.values() for w in _leaves(tree))
    assert said.endswith(f"{count} numbers of a psp\n")


def test_a_folder_of_the_hub_is_read_by_pytorch(folder):
    exported(folder, "hub")
    said = run(folder, "hub/")
    assert said.startswith(str(list(INFO.class_names)))
    assert said.endswith("numbers of a psp\n")


def test_the_same_facts_are_in_every_container(folder):
    """ONNX's properties, safetensors' header and the arrays of a StableHLO archive."""
    properties = onnx.load(exported(folder, "model.onnx")).metadata_props
    in_onnx = {entry.key: json.loads(entry.value) for entry in properties}
    with safe_open(exported(folder, "model.safetensors"), "numpy") as file:
        header = file.metadata()
    in_safetensors = {k: json.loads(v) for k, v in header.items() if k != "checksum"}
    with np.load(exported(folder, "model.stablehlo"), allow_pickle=False) as archive:
        plain = {k: archive[k].tolist() for k in archive.files if "/" not in k}
    for key, value in {
        "names": list(INFO.class_names),
        "palette": INFO.palette.tolist(),
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "channels": "RGB",
        "input": "RGB images, uint8, (batch, height, width, 3)",
        "license": "mit",
        "producer": f"fastfcn_jax {fastfcn_jax.__version__}",
    }.items():
        assert in_onnx[key] == in_safetensors[key] == plain[key] == value, key
    assert in_onnx["normalization"] == plain["normalization"]
    assert in_onnx["normalization"].startswith("inside the program")
    assert in_safetensors["normalization"].startswith("not in the file")
    assert "someone" not in header["fastfcn_jax"], "paths of this machine are private"


def test_files_are_as_readable_as_any_other(folder):
    for name in ("model.safetensors", "hub"):  # whose own writer makes files for their owner alone
        exported(folder, name)
    (folder / "plain").write_text("")
    usual = (folder / "plain").stat().st_mode
    files = [*folder.glob("model.*"), *(folder / "hub").iterdir()]
    assert {path.name: path.stat().st_mode for path in files if path.stat().st_mode != usual} == {}


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]
