"""Cropping before resizing equals resizing before cropping, up to rounding."""

import functools

import numpy as np
import pytest

from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import pipeline
from fastfcn_jax.data.augment import crop_first, mmseg
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.data.datasets.synthetic import StreetScenes
from fastfcn_jax.errors import UserError

SETTINGS = {
    "crop_size": (64, 96),
    "resize_scale": (200, 110),
    "ratio_range": (0.5, 2.0),
    "cat_max_ratio": 0.75,
    "flip": 0.5,
    "photometric": False,
}


@functools.cache
def scene(seed, size):
    return street_scene.Scene(np.random.default_rng(seed), size).draw()


def both(seed, size, **changes):
    image, label = scene(seed % 5, size)
    settings = SETTINGS | changes
    full = mmseg.augment(image, label, np.random.default_rng(seed), **settings)
    fast = crop_first.augment(image, label, np.random.default_rng(seed), **settings)
    return full, fast


@pytest.mark.parametrize("size", [(90, 160), (131, 77), (64, 96), (300, 260)])
def test_labels_are_equal_and_images_differ_by_rounding_alone(size):
    differing = []
    for seed in range(20):
        full, fast = both(seed, size)
        assert fast.size == full.size
        np.testing.assert_array_equal(fast.label, full.label)
        difference = np.abs(fast.image.astype(int) - full.image)
        assert difference.max() <= 1
        differing.append((difference > 0).mean())
    assert np.mean(differing) < 0.2


def test_the_same_draws_in_the_same_order():
    """With distortion too: one more or fewer random draw would shift every colour."""
    for seed in range(10):
        full, fast = both(seed, (90, 160), photometric=True)
        difference = np.abs(fast.image.astype(int) - full.image)
        assert np.median(difference) <= 2
        assert difference.mean() < 3


def test_the_pipeline_crops_first_on_request():
    config = get_config()
    config.data.crop_size = (32, 48)
    config.data.resize_scale = (80, 48)
    config.data.photometric = False
    config.train.batch_size = 4
    source = StreetScenes("val", shape=(48, 80))
    full = next(pipeline.build_train(config, source))
    config.data.crop_first = True
    fast = next(pipeline.build_train(config, source))
    np.testing.assert_array_equal(fast["label"], full["label"])
    np.testing.assert_array_equal(fast["index"], full["index"])
    assert np.abs(fast["image"].astype(int) - full["image"]).max() <= 1


def test_the_official_lineage_cannot_crop_first():
    config = get_config()
    config.data.augmentation = "official"
    config.data.crop_first = True
    with pytest.raises(UserError, match=r"data\.crop_first"):
        pipeline.build_augment(config.data)


@pytest.mark.parametrize("augment", [mmseg.augment, crop_first.augment])
@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1)])
def test_a_picture_whose_short_side_scales_to_nothing_becomes_a_sample(augment, size):
    image, label = np.full((*size, 3), 200, np.uint8), np.full(size, 3, np.uint8)
    settings = SETTINGS | {"ratio_range": (0.3, 0.5)}
    sample = augment(image, label, np.random.default_rng(0), **settings)
    assert sample.image.shape == (64, 96, 3)
    assert min(sample.size) >= 1
    assert (sample.label == 3).sum() == np.prod(sample.size)
