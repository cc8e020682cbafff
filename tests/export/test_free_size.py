"""Files that take images of any size: equal to their source at each, and run at the model's own."""

import importlib.util

import jax
import numpy as np
import pytest
import small

from fastfcn_jax import api, models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import export, metadata, readers, writers

pytestmark = pytest.mark.slow

NUM_CLASSES = 19
SUFFIXES = ["onnx"] + (["xml"] if importlib.util.find_spec("openvino") else [])
# Odd and even, tall and flat, and at stride 8 smaller than the pyramid's grid of 6.
SIZES = [(97, 41), (40, 72)]


def scene(height: int, width: int, seed: int = 5):
    return street_scene.Scene(np.random.default_rng(seed), (height, width)).draw()[0]


@pytest.mark.parametrize(
    ("head", "neck", "lineage", "changes"),
    [
        ("psp", "jpu", "mmseg", {"backbone": "resnet18"}),
        ("psp", "none", "official", {}),
        ("enc", "jpu", "mmseg", {"backbone": "resnet18", "lateral": True}),
        ("enc", "jpu", "paddleseg", {"lateral": True}),
        ("aspp", "jpu_x", "official", {}),
        ("fcn", "none", "mmseg", {"average_downsample": True, "backbone": "resnet18"}),
    ],
)
def test_every_part_is_exact_at_every_size(tmp_path, head, neck, lineage, changes):
    config = small.config(head, neck, lineage, auxiliary=False, **changes)
    model = models.build(config.model, NUM_CLASSES)
    variables = small.variables(config.model, NUM_CLASSES)
    job = writers.Job(model, variables, NUM_CLASSES, None)
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    forward = jax.jit(lambda variables, images: job.forward(variables, images, folded=False))
    files = {}
    for suffix in SUFFIXES:
        path = tmp_path / f"m.{suffix}"
        writers.WRITERS["openvino" if suffix == "xml" else suffix](
            job, path, metadata.write(card, None, {})
        )
        files[suffix] = readers.load(path)
    for size in SIZES:
        images = np.stack([scene(*size, seed) for seed in range(2)])
        wanted = jax.tree.map(np.asarray, forward(variables, images))
        for suffix, file in files.items():
            got, largest = file.run(images), np.abs(wanted["logits"]).max()
            np.testing.assert_allclose(
                got["logits"], wanted["logits"], atol=1e-5 * largest, err_msg=f"{suffix} {size}"
            )
            assert (got["labels"] == wanted["labels"]).mean() > 0.999


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A narrow model that tests images scaled to fit 96x64."""
    config = small.config("psp", "jpu", backbone="resnet18")
    config.data.test_scale = (96, 64)
    path = tmp_path_factory.mktemp("model") / "psp"
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    model_folder.save_model(path, small.variables(config.model, NUM_CLASSES), card)
    return path


def test_a_file_tests_photographs_as_its_folder_does(folder, tmp_path):
    """Scaled to the model's test scale in either orientation, without padding that it would see."""
    check, _ = export.export(folder, tmp_path / "m.onnx", None, "onnx")
    assert check.is_good
    model, file = api.load(folder, quiet=True), readers.load(tmp_path / "m.onnx")
    assert file.size is None
    assert file.metadata["check"]["sizes"] == [[192, 256], [256, 160], [137, 203]]
    for image in (scene(120, 50), scene(48, 130)):
        wanted = model.logits(image)
        np.testing.assert_allclose(file.logits(image), wanted, atol=1e-5 * np.abs(wanted).max())
        assert (file(image) == model(image)).mean() > 0.999


def test_other_formats_have_one_size(folder, tmp_path):
    for name in ("m.stablehlo", "m.safetensors"):
        with pytest.raises(UserError, match="--size free: is for --format onnx and openvino"):
            export.export(folder, tmp_path / name, None, name[2:])
    assert list(tmp_path.iterdir()) == []
