"""Images of other kinds than 8-bit RGB are augmented channel by channel, by the same draws."""

import cv2
import numpy as np
import pytest
from layouts import sentence

from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import pipeline
from fastfcn_jax.data.augment import crop_first, mmseg
from fastfcn_jax.data.resize import resize

SETTINGS = {
    "crop_size": (24, 40),
    "resize_scale": (60, 40),
    "ratio_range": (0.4, 1.6),
    "cat_max_ratio": 1.0,
    "flip": 0.5,
    "photometric": False,
}
LABEL = np.random.default_rng(0).integers(0, 5, (37, 53), np.uint8)


def image(channels, dtype):
    noise = np.random.default_rng(channels).random((37, 53, channels))
    smooth = np.dstack([cv2.GaussianBlur(noise[..., k], (5, 5), 2) for k in range(channels)])
    return (smooth * (1 if dtype == "float32" else np.iinfo(dtype).max)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 5, 9, 16])
@pytest.mark.parametrize("augment", [mmseg.augment, crop_first.augment])
def test_every_channel_is_augmented_as_if_it_were_alone(augment, channels, dtype):
    """Oracle: the same channel three times, as an image of three channels."""
    whole = image(channels, dtype)
    sizes = set()
    for seed in range(8):
        changed = augment(whole, LABEL, np.random.default_rng(seed), **SETTINGS)
        assert changed.image.shape == (*SETTINGS["crop_size"], channels)
        assert changed.image.dtype == dtype
        sizes.add(changed.size)
        for k in (0, channels - 1):
            three = np.repeat(whole[..., k : k + 1], 3, axis=2)
            alone = augment(three, LABEL, np.random.default_rng(seed), **SETTINGS)
            np.testing.assert_array_equal(changed.label, alone.label)
            np.testing.assert_allclose(
                changed.image[..., k].astype(np.float64),
                alone.image[..., 0].astype(np.float64),
                atol=1e-6 if dtype == "float32" else 1,
            )
    assert len(sizes) > 1, "the crops are padded, and not padded"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_resizing_many_channels_equals_opencv_channel_by_channel(dtype):
    pixels = image(16, dtype)
    expected = [cv2.resize(pixels[..., k].copy(), (31, 71)) for k in range(16)]
    resized = resize(pixels, (71, 31))
    atol = 1e-6 if dtype == "float32" else 1
    np.testing.assert_allclose(
        resized.astype(np.float64), np.dstack(expected).astype(np.float64), atol=atol
    )


def configured(**data):
    c = get_config().data
    c.update(channels=2, dtype="uint16", scaling=((10.0, 2.0), (20.0, 3.0)), **data)
    return c


def test_colours_are_not_changed_and_that_is_said():
    c = configured(crop_size=(24, 40), resize_scale=(60, 40))
    pixels = image(2, "uint16")
    changed = pipeline.build_augment(c)(pixels, LABEL, np.random.default_rng(1))
    c.photometric = False
    plain = pipeline.build_augment(c)(pixels, LABEL, np.random.default_rng(1))
    np.testing.assert_array_equal(changed.image, plain.image)
    assert pipeline.left_out(c) == ""
    c.photometric = True
    assert "(data.photometric), as the images have 2 channels of 16-bit" in pipeline.left_out(c)
    assert pipeline.left_out(get_config().data) == ""


def test_the_official_augmentation_is_refused():
    text = sentence(lambda: pipeline.build_augment(configured(augmentation="official")))
    assert "takes 8-bit RGB alone" in text
