"""The official augmentation against the calls of the official code, draw by draw."""

import functools
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from fastfcn_jax.data.augment import official
from fastfcn_jax.data.datasets import street_scene

BASE, CROP = 60, 48


# In place of Python's global generator, which the official code draws from: whatever else runs in
# the process (the tests' type checks, a library's thread) may draw from that one in between.
python = random.Random()


class PythonDraws:
    """The draws under the names of `np.random.Generator`."""

    def random(self):
        return python.random()

    def uniform(self, low, high):
        return python.uniform(low, high)

    def integers(self, low, high):
        return python.randint(low, high - 1)


@functools.cache
def scene(seed, size):
    return street_scene.Scene(np.random.default_rng(seed), size).draw()


def reference(image, label, rotate, first):
    """BaseDataset._sync_transform (and CitySegmentation's), on raw labels.

    first: stored value of the first class: 1 where 0 is no class; 0 on VOC and COCO.
    """
    img, mask = Image.fromarray(image), Image.fromarray(label + np.uint8(first))
    if python.random() < 0.5:
        img, mask = ImageOps.mirror(img), ImageOps.mirror(mask)
    short = python.randint(int(BASE * 0.5), int(BASE * 2.0))
    w, h = img.size
    if h > w:
        ow, oh = short, int(1.0 * h * short / w)
    else:
        oh, ow = short, int(1.0 * w * short / h)
    img, mask = img.resize((ow, oh), Image.BILINEAR), mask.resize((ow, oh), Image.NEAREST)
    if rotate:
        deg = python.uniform(-10, 10)
        img = img.rotate(deg, resample=Image.BILINEAR)
        mask = mask.rotate(deg, resample=Image.NEAREST)
    if short < CROP:
        border = (0, 0, max(CROP - ow, 0), max(CROP - oh, 0))
        img = ImageOps.expand(img, border=border, fill=0)
        mask = ImageOps.expand(mask, border=border, fill=0)
    w, h = img.size
    x, y = python.randint(0, w - CROP), python.randint(0, h - CROP)
    img, mask = (p.crop((x, y, x + CROP, y + CROP)) for p in (img, mask))
    if python.random() < 0.5:
        img = img.filter(ImageFilter.GaussianBlur(radius=python.random()))
    return np.array(img), np.array(mask) - np.uint8(first)


@pytest.mark.parametrize(("rotate", "first"), [(False, 1), (True, 1), (False, 0)])
def test_equal_to_the_official_code_given_the_same_draws(rotate, first):
    padded = 0
    for seed in range(30):
        size = (70, 110) if seed % 3 else (120, 65)
        image, label = scene(seed % 6, size)
        python.seed(seed)
        expected_image, expected_label = reference(image, label, rotate, first)
        after = python.random()
        python.seed(seed)
        result = official.augment(
            image,
            label,
            PythonDraws(),
            crop_size=(CROP, CROP),
            base_size=BASE,
            flip=0.5,
            rotation=10.0 if rotate else 0.0,
            blur=True,
            padding_label=255 if first else 0,
        )
        assert python.random() == after
        np.testing.assert_array_equal(result.image, expected_image)
        np.testing.assert_array_equal(result.label, expected_label)
        assert result.size == (CROP, CROP)  # black borders are part of the image, not padding
        padded += (expected_image[-1] == 0).all()
    assert 1 < padded < 28
