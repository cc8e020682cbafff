"""Writes images in the layouts of data sets, and catches the error message of a bad one."""

import numpy as np
import pytest
from PIL import Image

from fastfcn_jax.errors import UserError


def write_png(path, pixels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path)


def write_jpg(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def label_of(values, seed, size=(12, 20)):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), size)


def photo(seed=0, size=(12, 20)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def sentence(read) -> str:
    with pytest.raises(UserError) as caught:
        read()
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text
