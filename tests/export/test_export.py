"""Exported files: equal to their source, refused if not, and run by `predict`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import onnx
import PIL.Image
import pytest
import small

import fastfcn_jax
from fastfcn_jax import api, models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.convert import convert
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import __main__ as command
from fastfcn_jax.export import export, exported, metadata, readers, writers
from fastfcn_jax.inference.network import network
from fastfcn_jax.models.ops.forms import FAST

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIZE = (96, 128)
NUM_CLASSES = 19
FORMATS = ["stablehlo", "onnx", "safetensors"] + (
    ["tflite"] if importlib.util.find_spec("tensorflow") else []
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder of a narrow PSP model."""
    config = small.config("psp", "jpu")
    config.data.test_scale = (SIZE[1], SIZE[0])
    path = tmp_path_factory.mktemp("model") / "psp"
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    model_folder.save_model(path, small.variables(config.model, NUM_CLASSES), card)
    return path


@pytest.fixture(scope="module")
def files(folder, tmp_path_factory):
    """The folder's model in every format, by format."""
    output = tmp_path_factory.mktemp("exported")
    for file_format in FORMATS:
        check, _ = export.export(folder, output / f"m.{file_format}", SIZE, file_format)
        assert check.largest_difference < 1e-5 * check.largest_logit
        assert check.equal_labels == 1.0
    return {file_format: output / f"m.{file_format}" for file_format in FORMATS}


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 300 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs privileges")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def scene(height: int, width: int, seed: int = 5):
    return street_scene.Scene(np.random.default_rng(seed), (height, width)).draw()[0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_answers_like_its_folder(folder, files, file_format):
    model, file = api.load(folder), readers.load(files[file_format])
    assert file.info.class_names == model.info.class_names
    np.testing.assert_array_equal(file.info.palette, model.info.palette)
    image = scene(*SIZE)
    wanted = model.logits(image)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(file.logits(image), wanted, atol=1e-5 * scale)
    np.testing.assert_array_equal(file(image), model(image))
    assert len(np.unique(file(image))) > 1
    # Twice the size: scaled into the program's input and back, as the test scale does it.
    larger = scene(2 * SIZE[0], 2 * SIZE[1])
    np.testing.assert_allclose(file.logits(larger), model.logits(larger), atol=1e-5 * scale)
    sure = file.predict(image, confidence=True).confidence
    np.testing.assert_allclose(sure, model.predict(image).confidence, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"stem": "plain", "average_downsample": True, "backbone": "resnet18"},
        {"average_downsample": True, "backbone": "resnext50_32x4d", "base_width": 16},
    ],
)
def test_other_backbones_in_onnx(tmp_path, changes):
    """At a size that is odd after every halving: shortcuts average an incomplete row there."""
    config = small.config("fcn", "none")
    config.model.update(changes)
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    variables = small.variables(config.model, NUM_CLASSES)
    model_folder.save_model(tmp_path / "model", variables, card)
    check, _ = export.export(tmp_path / "model", tmp_path / "m.onnx", (75, 107), "onnx")
    assert check.largest_difference < 1e-5 * check.largest_logit


@pytest.mark.parametrize("file_format", FORMATS)
def test_photographs_of_another_shape_are_not_distorted(files, file_format):
    """The input that a tall photograph does not fill is padding, and is cropped away again."""
    file = readers.load(files[file_format])
    image = scene(80, 50)
    assert file(image).shape == (80, 50)
    assert file.logits(image).shape == (80, 50, NUM_CLASSES)
    padded = np.full((80, 107, 3), exported.MEAN_COLOR, np.uint8)
    padded[:, :50] = image
    same = (file(padded)[:, :40] == file(image)[:, :40]).mean()
    assert same > 0.9


@pytest.mark.parametrize("file_format", ["stablehlo", "onnx"])
def test_any_batch_size(files, file_format):
    file = readers.load(files[file_format])
    images = np.stack([scene(*SIZE, seed) for seed in range(3)])
    together = file.run(images)
    for i, image in enumerate(images):
        alone = file.run(image[None])
        np.testing.assert_allclose(together["logits"][i], alone["logits"][0], atol=1e-5)
        np.testing.assert_array_equal(together["labels"][i], alone["labels"][0])


@pytest.mark.parametrize("file_format", FORMATS)
def test_metadata_say_what_the_file_is(folder, files, file_format):
    said = readers.load(files[file_format]).metadata
    assert said["size"] == list(SIZE)
    assert said["preprocessing"] == model_folder.read_card(folder)["preprocessing"]
    assert said["config"]["model"]["head"] == "psp"
    assert said["check"]["equal_labels"] == 1.0
    assert said["check"]["image"] == "drawn street scene"


@pytest.mark.parametrize(
    ("head", "neck", "lineage"),
    [
        ("aspp", "jpu", "mmseg"),
        ("enc", "none", "mmseg"),
        ("enc lateral", "jpu", "mmseg"),
        ("enc", "jpu_x", "official"),
        ("enc lateral", "jpu", "paddleseg"),
    ],
)
def test_onnx_of_every_part(tmp_path, head, neck, lineage):
    """The graph is written layer by layer: each head and neck against the model itself."""
    head, *lateral = head.split()
    config = small.config(head, neck, lineage, auxiliary=False, lateral=bool(lateral))
    model = models.build(config.model, NUM_CLASSES)
    variables = small.variables(config.model, NUM_CLASSES)
    job = writers.Job(model, variables, NUM_CLASSES, (97, 131))  # odd: rounding shows
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    path = tmp_path / "m.onnx"
    writers.onnx(job, path, metadata.write(card, job.size, {}))
    images = np.stack([scene(*job.size, seed) for seed in range(2)])
    wanted = np.asarray(jax.jit(lambda v, x: network(model, v, x, None))(variables, images))
    got = readers.load(path).run(images)["logits"]
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("file_format", ["stablehlo", "safetensors"])
def test_a_flipped_bit_is_noticed(files, tmp_path, file_format):
    data = bytearray(files[file_format].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / f"m.{file_format}").write_bytes(data)
    with pytest.raises(UserError, match=r"Bad CRC-32|do not match their checksum"):
        readers.load(tmp_path / f"m.{file_format}")


def test_onnx_properties_are_for_other_programs_too(files):
    said = onnx.load(files["onnx"])
    found = {entry.key: entry.value for entry in said.metadata_props}
    assert json.loads(found["names"])[:2] == ["road", "sidewalk"]
    assert json.loads(found["palette"])[0] == [128, 64, 128]
    assert json.loads(found["mean"]) == [123.675, 116.28, 103.53]
    assert json.loads(found["std"]) == [58.395, 57.12, 57.375]
    assert json.loads(found["channels"]) == "RGB"
    assert (said.producer_name, said.producer_version) == ("fastfcn_jax", fastfcn_jax.__version__)


@pytest.mark.parametrize("height", [15, 45])
def test_full_width_is_exported_for_any_batch_size(height):
    """The batch size is symbolic: an implementation that needs a number failed at 480x480."""
    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), height, height, 128), "float32")
    kernel = jax.ShapeDtypeStruct((3, 3, 128, 128), "float32")
    program = jax.export.export(jax.jit(FAST.convolve), platforms=writers.PLATFORMS)
    (made,) = program(images, kernel).out_avals
    assert made.shape[1:] == (height, height, 128)


def test_stablehlo_is_for_every_platform(files):
    with np.load(files["stablehlo"], allow_pickle=False) as archive:
        program = jax.export.deserialize(bytearray(archive["program"].tobytes()))
        assert json.loads(archive["metadata"].tobytes())["size"] == list(SIZE)
    assert program.platforms == ("cpu", "cuda", "tpu")


def test_a_file_that_disagrees_is_not_written(folder, tmp_path, monkeypatch):
    """The comparison detects a classifier that is 1 % too large, and no file is left."""

    def wrong(job, path, metadata):
        changed = jax.tree.map(np.copy, job.variables)
        changed["params"]["decode_head"]["conv_seg"]["kernel"] *= np.float32(1.01)
        writers.safetensors(job._replace(variables=changed), path, metadata)

    monkeypatch.setitem(writers.WRITERS, "safetensors", wrong)
    with pytest.raises(UserError, match="is not written, as it disagrees with its source"):
        export.export(folder, tmp_path / "m.safetensors", SIZE, "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_name_is_refused_before_the_work(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for name, reason in (("file/m.onnx", "does not exist"), (f"{'m' * 260}.onnx", "too long")):
        with pytest.raises(UserError, match=reason):
            export.export(folder, tmp_path / name, SIZE, "onnx")


def test_a_full_disk_is_named_and_nothing_is_left(folder, small_disk):
    with pytest.raises(UserError, match=r"m\.safetensors: no space left on the disk; free some"):
        export.export(folder, small_disk / "m.safetensors", SIZE, "safetensors")
    with pytest.raises(UserError, match=r"m\.pth: no space left on the disk; free some"):
        convert.to_file(folder, small_disk / "m.pth", "mmseg")
    assert list(small_disk.iterdir()) == []


def test_bad_requests(folder, tmp_path):
    with pytest.raises(UserError, match=r"has to end in \.onnx"):
        export.export(folder, tmp_path / "m.pb", SIZE, "onnx")
    (tmp_path / "m.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match="already exists"):
        export.export(folder, tmp_path / "m.onnx", SIZE, "onnx")
    with pytest.raises(UserError, match=r"model\.json is missing"):
        export.export(tmp_path, tmp_path / "n.onnx", SIZE, "onnx")
    for words in ("512", "512 1024 3", "a b", "16 16", "-1 512", "512 ²", "512 9000", "9" * 5000):
        with pytest.raises(UserError, match="give height and width"):
            command.parse_size(words)
    assert {command.parse_size(w) for w in ("512 1024", "512x1024", "512,1024")} == {(512, 1024)}


@pytest.mark.parametrize("name", ["m.stablehlo", "m.onnx", "m.safetensors"])
def test_files_that_are_not_exports(tmp_path, name):
    (tmp_path / name).write_bytes(b"accuracy: 79.26\n" * 100)
    with pytest.raises(UserError, match="not a file that this program exported"):
        readers.load(tmp_path / name)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"not an exported model \(\.stablehlo"):
        readers.load(tmp_path / "m.bin")


def test_predict_runs_an_exported_file(files, tmp_path):
    image = scene(*SIZE)
    cv2.imwrite(str(tmp_path / "photo.png"), image[..., ::-1])
    command = [sys.executable, "-m", "fastfcn_jax.predict", "--input", str(tmp_path / "photo.png")]
    command += ["--model", str(files["onnx"]), "--output", str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ)
    with PIL.Image.open(tmp_path / "out" / "photo.png") as picture:  # OpenCV would give colours
        labels = np.array(picture)
    np.testing.assert_array_equal(labels, readers.load(files["onnx"])(image))
    assert (tmp_path / "out" / "photo_overlay.png").is_file()


def test_one_channel_is_decided_at_its_threshold(tmp_path):
    config = small.config("fcn", "none", backbone="resnet18", num_classes=1, threshold=0.45)
    config.data.test_scale = (0, 0)
    info = DatasetInfo("folder", ("rest", "crack"), np.zeros((2, 3), np.uint8))
    card = model_folder.model_card(config, info, {})
    model_folder.save_model(tmp_path / "m", small.variables(config.model, 2), card)
    file = tmp_path / "m.onnx"
    export.export(tmp_path / "m", file, SIZE, "onnx")
    image = scene(*SIZE)
    labels, sure = api.load(tmp_path / "m").predict(image)
    assert 0 < labels.mean() < 1
    exported = readers.load(file)
    found, its_confidence = exported.predict(image, confidence=True)
    assert (found == labels).mean() > 0.999
    np.testing.assert_allclose(its_confidence[found == labels], sure[found == labels], atol=1e-4)
    ran = exported.run(image[None])
    assert (ran["labels"][0] == labels).mean() > 0.999
    assert not ran["logits"][..., 0].any()
