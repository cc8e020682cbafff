"""PaddleSeg's augmentation against the calls of its code, draw by draw."""

import random

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fastfcn_jax.data.augment import paddleseg
from fastfcn_jax.data.datasets import street_scene

CROP = (48, 56)
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


# In place of PaddleSeg's two generators, Python's and NumPy's; the tests' type checks draw from the
# global one as well.
python = random.Random()


class TheirDraws:
    """The draws under the names of `np.random.Generator`."""

    def random(self):
        return python.random()

    def uniform(self, low, high):
        return python.uniform(low, high)

    def integers(self, low, high):
        return python.randrange(low, high)

    def permutation(self, count):
        order = list(range(count))
        python.shuffle(order)
        return order


def brightness(im):
    return ImageEnhance.Brightness(im).enhance(python.uniform(0.6, 1.4))


def contrast(im):
    return ImageEnhance.Contrast(im).enhance(python.uniform(0.6, 1.4))


def saturation(im):
    return ImageEnhance.Color(im).enhance(python.uniform(0.6, 1.4))


def sharpness(im):
    raise AssertionError("its probability is 0")


def hue(im):
    delta = python.uniform(-18, 18)
    im = np.array(im.convert("HSV"))
    im[:, :, 0] = im[:, :, 0] + delta
    return Image.fromarray(im, mode="HSV").convert("RGB")


def reference(image, label):
    """ResizeStepScaling, RandomPaddingCrop, RandomHorizontalFlip, RandomDistort."""
    image = image.astype("float32")
    factors = np.linspace(0.5, 2.0, int((2.0 - 0.5) / 0.25 + 1)).tolist()
    python.shuffle(factors)
    w, h = round(factors[0] * image.shape[1]), round(factors[0] * image.shape[0])
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, (w, h), interpolation=cv2.INTER_NEAREST)
    if label.shape != CROP:
        pad = (0, max(CROP[0] - h, 0), 0, max(CROP[1] - w, 0))
        image = cv2.copyMakeBorder(image, *pad, cv2.BORDER_CONSTANT, value=(127.5,) * 3)
        label = cv2.copyMakeBorder(label, *pad, cv2.BORDER_CONSTANT, value=255)
        y = python.randrange(0, max(h - CROP[0], 0) + 1)
        x = python.randrange(0, max(w - CROP[1], 0) + 1)
        image, label = (a[y : y + CROP[0], x : x + CROP[1]] for a in (image, label))
    if python.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    operations = [brightness, contrast, saturation, sharpness, hue]
    python.shuffle(operations)
    picture = Image.fromarray(image.astype("uint8"))
    for operation in operations:
        if python.uniform(0, 1) < (0 if operation is sharpness else 0.5):
            picture = operation(picture)
    return np.asarray(picture), label


@pytest.mark.filterwarnings("ignore:.*mode:DeprecationWarning")
def test_equal_to_paddleseg_given_the_same_draws():
    padded = 0
    for seed in range(30):
        size = (CROP, (70, 110), (120, 65))[seed % 3]
        image, label = street_scene.Scene(np.random.default_rng(seed % 5), size).draw()
        results = []
        for run in (reference, augment):
            python.seed(seed)
            results.append((*run(image, label), python.random()))
        for expected, ours in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, expected)
        padded += (results[0][1][-1] == 255).all()
    assert padded > 1


def augment(image, label):
    result = paddleseg.augment(
        image,
        label,
        TheirDraws(),
        crop_size=CROP,
        ratios=paddleseg.factors((0.5, 2.0), 0.25),
        flip=0.5,
        photometric=True,
    )
    assert result.size == CROP  # grey borders are part of the image, not padding
    return result.image, result.label


def test_factors_are_a_step_apart():
    assert paddleseg.factors((0.5, 2.0), 0.25) == RATIOS
    assert paddleseg.factors((1.0, 1.0), 0.25) == (1.0,)
    assert paddleseg.factors((0.5, 1.0), 0.5) == (0.5, 1.0)
