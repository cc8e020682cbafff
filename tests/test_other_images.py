"""Folders of other images than 8-bit RGB, from the doctor to exported files."""

import json

import cv2
import numpy as np
import pytest
import tifffile
from messy import index, put
from PIL import Image

import fastfcn_jax
from fastfcn_jax import api, pictures
from fastfcn_jax.__main__ import command
from fastfcn_jax.config import experiment
from fastfcn_jax.data import cache, datasets, rasters
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import readers
from fastfcn_jax.serve import answer, desk

pytestmark = pytest.mark.slow

SIZE = (64, 96)
TINY = [
    "--config.model.backbone=resnet18",
    "--config.model.base_width=8",
    "--config.model.neck_channels=8",
    "--config.model.head_channels=8",
    "--config.model.auxiliary=False",
    "--config.data.crop_size=(32, 48)",
    "--config.data.threads=2",
    "--config.train.steps=6",
    "--config.train.batch_size=2",
    "--config.train.eval_every=6",
    "--config.train.save_every=6",
    "--config.train.pictures=1",
    "--config.optim.lr=0.05",
]


def image(seed, channels, top):
    """Values that follow the label: every class has a level of its own in every channel."""
    label = index(seed, SIZE)
    levels = np.linspace(0.1, 0.9, 3)[(label[..., None] + np.arange(channels)) % 3]
    noise = np.random.default_rng(seed).normal(0, 0.02, levels.shape)
    return np.clip((levels + noise) * top, 0, top)


def main(arguments):
    name, *rest = arguments
    return command(name).main(rest)


def write_tiff(path, pixels):
    tifffile.imwrite(path, np.moveaxis(pixels, 2, 0), photometric="minisblack", compression="zlib")


def write_png(path, pixels):
    assert cv2.imwrite(str(path), pixels)


KINDS = {
    "16-bit TIFF of five bands": (write_tiff, ".tif", 5, "uint16", 1023),
    "grey PNG": (write_png, ".png", 1, "uint8", 255),
    "floating-point npy": (np.save, ".npy", 2, "float32", 1.0),
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """A folder of one kind, adopted and trained; (folder, run, kind)."""
    kind = write, ending, channels, dtype, top = KINDS[request.param]
    root = tmp_path_factory.mktemp("photos")
    (root / "images").mkdir()
    for i in range(10):
        write(root / "images" / f"{i}{ending}", image(i, channels, top).astype(dtype))
        put(root / "labels" / f"{i}.png", index(i, SIZE))
    assert main(["doctor", "--folder", str(root)]) == 0
    run = root / "run"
    words = ["train", "--config", str(root / "fastfcn_config.py"), "--workdir", str(run), *TINY]
    assert main([*words, f"--config.data.cache={root / 'cache'}"]) == 0
    return root, run, kind


def test_the_model_says_what_it_takes(trained):
    root, run, (_, _, channels, dtype, _) = trained
    said = json.loads((run / "model.json").read_text())["preprocessing"]
    scaling = experiment.load(str(root / "fastfcn_config.py")).data.scaling
    mean, std = (list(values) for values in zip(*scaling, strict=True))
    assert said == {"mean": mean, "std": std, "channels": channels, "dtype": dtype}
    assert (run / "report.html").is_file()
    assert list((run / "pictures").rglob("*.png"))


def test_it_is_evaluated(trained, tmp_path):
    _, run, _ = trained
    assert main(["eval", "--checkpoint", str(run), "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["num_images"] == 2


def test_files_and_arrays_are_predicted_alike(trained, tmp_path):
    root, run, (_, ending, channels, dtype, top) = trained
    arguments = ["--checkpoint", str(run), "--output", str(tmp_path), "--confidence"]
    assert main(["predict", "--input", str(root / "images"), *arguments]) == 0
    model, pixels = api.load(run), image(3, channels, top).astype(dtype)
    labels = model(pixels)
    assert labels.shape == SIZE
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "3.png")), labels)
    if channels == 1:
        np.testing.assert_array_equal(model(pixels[..., 0]), labels)
    assert model.overlay(pixels).shape == (*SIZE, 3)
    with pytest.raises(UserError, match=rf"{dtype} array \(height, width, {channels}\)"):
        model(np.zeros((*SIZE, channels + 1), dtype))
    answers = answer.Answerer(model, desk.Occupation())
    said = answers((root / "images" / f"3{ending}").read_bytes(), "json")
    assert (said.width, said.height) == SIZE[::-1]
    assert said.photo


def test_tiles_take_the_same_files(trained, tmp_path):
    root, run, (_, ending, *_) = trained
    arguments = ["--checkpoint", str(run), "--output", str(tmp_path), "--tile", "64"]
    assert main(["predict", "--input", str(root / "images" / f"3{ending}"), *arguments]) == 0
    assert cv2.imread(str(tmp_path / "3_overlay.png")).shape == (*SIZE, 3)


@pytest.mark.parametrize("file_format", ["stablehlo", "onnx", "safetensors"])
def test_exported_files_take_the_same_images(trained, tmp_path, file_format):
    root, run, (_, ending, channels, dtype, top) = trained
    if file_format == "stablehlo" and channels != 5:
        pytest.skip("it takes long to compile")
    output = tmp_path / f"m.{file_format}"
    options = ["--format", file_format, "--size", str(SIZE[0]), str(SIZE[1])]
    photo = ["--image", str(root / "images" / f"3{ending}")]
    words = ["export", "--checkpoint", str(run), "--output", str(output), *options]
    assert not main([*words, *photo])
    exported, pixels = readers.load(output), image(3, channels, top).astype(dtype)
    assert exported.pixel == (channels, dtype)
    assert exported.metadata["input"].startswith(f"images, {dtype}, (batch, height, width, ")
    wanted = api.load(run).logits(pixels)
    np.testing.assert_allclose(exported.logits(pixels), wanted, atol=1e-3 * np.abs(wanted).max())
    small = cv2.resize(pixels, (48, 24)).reshape(24, 48, channels)
    assert exported(small).shape == (24, 48)
    arguments = ["--model", str(output), "--output", str(tmp_path / "out")]
    assert not main(["predict", "--input", photo[1], *arguments])


def test_missing_values_count_as_the_mean_in_every_program(trained, tmp_path):
    _, run, (_, _, channels, dtype, top) = trained
    if dtype != "float32":
        pytest.skip("whole numbers are never NaN")
    pixels = image(3, channels, top).astype(dtype)
    mean = api.load(run).config.data.scaling[1][0]
    pixels[8:24, 8:24, 1] = mean
    wanted = api.load(run).logits(pixels)
    pixels[8:24, 8:24, 1] = np.nan
    output = tmp_path / "m.onnx"
    fastfcn_jax.export(run, output, SIZE, "onnx")
    for model in (api.load(run), readers.load(output)):
        np.testing.assert_allclose(model.logits(pixels), wanted, atol=1e-3)


def test_the_cache_holds_the_images_as_they_are(trained):
    root, *_ = trained
    data = experiment.load(str(root / "fastfcn_config.py")).data
    source = datasets.open_split(data, "train")
    cached = cache.open_or_build(str(root / "cache"), source)
    for i in range(len(source)):
        assert cached[i].image.flags.aligned
        np.testing.assert_array_equal(cached[i].image, source[i].image, strict=True)
        np.testing.assert_array_equal(cached[i].label, source[i].label)


def test_photographs_of_another_kind_are_one_sentence(trained, tmp_path, capsys):
    _, run, (_, _, channels, _, _) = trained
    picture = tmp_path / "x.png"
    assert cv2.imwrite(str(picture), np.zeros((*SIZE, 3), np.uint8))
    arguments = ["--checkpoint", str(run), "--output", str(tmp_path / "out")]
    assert main(["predict", "--input", str(picture), *arguments]) == 1
    said = capsys.readouterr().err
    assert f"x.png: has 3 channels, the configuration {channels} (data.channels)" in said


def test_any_image_becomes_a_picture():
    dark = image(0, 5, 300).astype(np.uint16)
    shown = pictures.as_rgb(dark)
    assert shown.shape == (*SIZE, 3)
    assert (shown.min(), shown.max()) == (0, 255), "a dark 16-bit image is stretched"
    grey = image(0, 1, 255).astype(np.uint8)
    np.testing.assert_array_equal(pictures.as_rgb(grey), np.repeat(grey, 3, axis=2))
    rgb = image(0, 3, 255).astype(np.uint8)
    assert pictures.as_rgb(rgb) is rgb
    blank = np.full((*SIZE, 2), np.nan, np.float32)
    assert not pictures.as_rgb(blank).any()
    assert rasters.RGB == (3, "uint8")
