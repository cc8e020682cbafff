"""The doctor finds what photographs hold, measures it, and writes a configuration for it."""

import cv2
import numpy as np
import pytest
import tifffile
from layouts import sentence
from messy import index, lay, photo, put
from PIL import Image

from fastfcn_jax.config import experiment
from fastfcn_jax.data import datasets
from fastfcn_jax.doctor import photo_kind
from fastfcn_jax.doctor.adopt import adopt

SIZE = (24, 32)


def bands(seed, channels=5, top=1023):
    """Smooth values from 0 to `top`, each channel in another part of the range."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((4, 5, channels)) * np.linspace(0.5, 1, channels)
    smooth = np.dstack([cv2.resize(coarse[..., k], SIZE[::-1]) for k in range(channels)])
    return np.round(smooth * top)


def folder(root, write, ending, count=6):
    """Photographs written by `write(path, seed)`, with labels of three classes."""
    for i in range(count):
        path = root / "images" / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, i)
        put(root / "labels" / f"{i}.png", index(i))
    return root


def multispectral(path, seed):
    pixels = np.moveaxis(bands(seed), 2, 0).astype(np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate")


def configured(root):
    return experiment.load(str(root / "fastfcn_config.py")).data


def test_a_folder_of_multispectral_tiffs(tmp_path):
    lines = adopt(folder(tmp_path, multispectral, "tif"))
    assert lines[1] == "photos have 5 channels of 16-bit values (uint16)"
    text = "\n".join(lines)
    data = configured(tmp_path)
    assert (data.channels, data.dtype) == (5, "uint16")
    train = [int(i.removeprefix("images/")) for i in datasets.open_split(data, "train").ids]
    every = np.concatenate([bands(i).reshape(-1, 5) for i in train])
    np.testing.assert_allclose([pair[0] for pair in data.scaling], every.mean(0), rtol=1e-5)
    np.testing.assert_allclose([pair[1] for pair in data.scaling], every.std(0), rtol=1e-5)
    assert f"channel 5: mean {every.mean(0)[4]:.6g}" in text
    assert f"the largest value is {every.max():.0f}: 10-bit data in 16-bit files" in text
    sample = datasets.open_split(data, "val")[0]
    assert sample.image.dtype == np.uint16
    assert sample.image.shape == (*SIZE, 5)


def test_more_photographs_must_be_of_the_same_kind(tmp_path):
    root = folder(tmp_path, multispectral, "tif")
    adopt(root)
    multispectral(root / "images" / "7.tif", 7)
    put(root / "labels" / "7.png", index(7))
    assert "1 new photo" in "\n".join(adopt(root, update=True))
    tifffile.imwrite(root / "images" / "8.tif", bands(8, 4).astype(np.uint16), photometric="rgb")
    put(root / "labels" / "8.png", index(8))
    text = sentence(lambda: adopt(root, update=True))
    assert "8.tif: has 4 channels, the configuration 5 (data.channels)" in text


def test_one_photograph_of_another_kind_is_a_bad_file(tmp_path):
    root = folder(tmp_path, multispectral, "tif")
    tifffile.imwrite(root / "images" / "3.tif", bands(3, 4).astype(np.uint16), photometric="rgb")
    assert "3.tif: has 4 channels, the configuration 5" in sentence(lambda: adopt(root))
    assert "5 photos" not in adopt(root, skip_bad=True)[0]
    assert configured(root).channels == 5


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (lambda x: x * 16, "the lowest 4 bits are always 0: 12-bit data in the upper bits"),
        (lambda x: x, "the largest value is 4095: 12-bit data"),
        (lambda x: x * 15, ""),
    ],
)
def test_bits_that_16_bit_files_do_not_use(written, line):
    values = written(np.arange(4096, dtype=np.uint16)).reshape(64, 64, 1)
    found = photo_kind.describe(photo_kind.PixelType(1, "uint16"), photo_kind.measure(values))
    assert line in "\n".join(found)
    assert bool(line) == (len(found) > 1)


def test_missing_and_constant_values():
    values = np.random.default_rng(0).normal(5, 2, (64, 64, 3)).astype(np.float32)
    values[..., 1] = 7
    values[:8, :, 0] = np.nan
    values[0, 0, 2] = np.inf
    found = photo_kind.measure(values)
    known = values[8:, :, 0].astype(np.float64)
    np.testing.assert_allclose((found.mean[0], found.deviation[0]), (known.mean(), known.std()))
    assert found.scaling[1] == (7.0, 1.0)
    text = "\n".join(photo_kind.describe(photo_kind.PixelType(3, "float32"), found))
    assert "channel 2 holds one value in all photos" in text
    assert "4.2 % of the values are NaN or infinite" in text


def test_statistics_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(1).gamma(2, 900, (90, 40, 4)).astype(np.uint16)
    parts = [photo_kind.measure(part) for part in (values[:10], values[10:15], values[15:])]
    found, whole = photo_kind.together(parts), values.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(found.mean, whole.mean(0))
    np.testing.assert_allclose(found.deviation, whole.std(0))
    np.testing.assert_array_equal(found.high, whole.max(0))


def grey(path, seed):
    Image.fromarray(photo(seed, SIZE)[..., 0]).save(path)


def test_grey_photographs_have_one_channel_unless_told_otherwise(tmp_path):
    lines = adopt(folder(tmp_path, grey, "png"))
    assert "photos have 1 channel of 8-bit values (uint8) (--channels rgb" in "\n".join(lines)
    assert (configured(tmp_path).channels, configured(tmp_path).dtype) == (1, "uint8")
    lines = adopt(tmp_path, overwrite=True, channels="rgb")
    assert "channel" not in "\n".join(line for line in lines if "--update" not in line)
    assert "--channels rgb" in "\n".join(lines), "the line for more photographs says it again"
    assert (configured(tmp_path).channels, configured(tmp_path).scaling) == (3, ())


def test_grey_among_colour_and_transparency_are_8_bit_rgb(tmp_path):
    lay(tmp_path, "images/{}.png", "labels/{}.png")
    grey(tmp_path / "images" / "2.png", 2)
    Image.fromarray(photo(3)).convert("RGBA").save(tmp_path / "images" / "3.png")
    assert "channel" not in "\n".join(adopt(tmp_path))
    assert configured(tmp_path).channels == 3


def test_transparency_is_a_channel_on_request(tmp_path):
    lay(tmp_path, "images/{}.png", "labels/{}.png")
    for path in (tmp_path / "images").iterdir():
        Image.open(path).convert("RGBA").save(path)
    adopt(tmp_path, channels="all")
    data = configured(tmp_path)
    assert (data.channels, data.scaling[3]) == (4, (255.0, 1.0))


def test_16_bits_among_8_are_read_as_8_and_that_is_said(tmp_path):
    lay(tmp_path, "images/{}.png", "labels/{}.png")
    cv2.imwrite(str(tmp_path / "images" / "2.png"), bands(2, 3).astype(np.uint16))
    assert "1 photo with 3 channels of 16-bit values (uint16) read as 8-bit" in "\n".join(
        adopt(tmp_path)
    )


def test_roles_without_telling_folders(tmp_path):
    """Multi-band photographs beside their labels: more channels than a label has."""
    for i in range(6):
        multispectral(tmp_path / f"{i}.tif", i)
        np.save(tmp_path / f"a{i}.npy", bands(i).astype(np.uint16))
        put(tmp_path / f"{i}.png", index(i))
        put(tmp_path / f"a{i}.png", index(i))
    assert adopt(tmp_path)[0] == "12 photos with a label each"
    assert configured(tmp_path).channels == 5
