"""The mmseg augmentation against the real mmsegmentation 1.2.2, bit by bit, draw by draw."""
# ruff: noqa: NPY002 - mmseg draws from the global generator

import numpy as np
import oracle
import pytest
from mmseg_transforms import mmseg_pipeline, scene

from fastfcn_jax.data.augment import mmseg

CROP = (64, 96)
SCALE = (200, 110)
RATIOS = (0.5, 2.0)


RESIZE = {"type": "RandomResize", "scale": SCALE, "ratio_range": RATIOS, "keep_ratio": True}
RANDOM_CROP = {"type": "RandomCrop", "crop_size": CROP, "cat_max_ratio": 0.75}
FLIP = {"type": "RandomFlip", "prob": 0.5}
DISTORT = {"type": "PhotoMetricDistortion"}


def ours(image, label, **changes):
    settings = {
        "crop_size": CROP,
        "resize_scale": SCALE,
        "ratio_range": RATIOS,
        "cat_max_ratio": 0.75,
        "flip": 0.5,
        "photometric": True,
    }
    return mmseg.augment(image, label, oracle.GlobalDraws(), **(settings | changes))


def test_the_pipeline_equals_mmseg_given_the_same_draws():
    reference = mmseg_pipeline(RESIZE, RANDOM_CROP, FLIP, DISTORT)
    padded = 0
    for seed in range(40):
        image, label = scene(seed % 10, (90, 160) if seed % 3 else (131, 77))
        np.random.seed(seed)
        expected_image, expected_label = reference(image, label)
        draws_used = np.random.random_sample()
        np.random.seed(seed)
        result = ours(image, label)
        assert np.random.random_sample() == draws_used
        h, w = result.size
        assert expected_label.shape == (h, w)
        np.testing.assert_array_equal(result.label[:h, :w], expected_label)
        np.testing.assert_array_equal(result.image[:h, :w], expected_image)
        assert (result.label[h:] == 255).all()
        assert (result.label[:, w:] == 255).all()
        assert result.image.shape == (*CROP, 3)
        padded += (h, w) != CROP
    assert 2 < padded < 38  # both cases were met


def test_photometric_distortion_equals_mmseg_on_every_colour():
    """On noise, where any difference in rounding or order of steps becomes visible."""
    reference = mmseg_pipeline(DISTORT)
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    label = np.zeros((48, 48), np.uint8)
    for seed in range(100):
        np.random.seed(seed)
        expected, _ = reference(image, label)
        np.random.seed(seed)
        np.testing.assert_array_equal(
            mmseg.photometric_distortion(image, oracle.GlobalDraws()), expected
        )


def test_crops_that_one_class_dominates_are_drawn_again_as_in_mmseg():
    """A label of one class: all eleven crops are drawn, the last one is used unchecked."""
    reference = mmseg_pipeline(RANDOM_CROP)
    image, _ = scene(0, (100, 140))
    label = np.full((100, 140), 255, np.uint8)
    label[:, :100] = 3
    label[:5, :5] = 4
    for seed in range(20):
        np.random.seed(seed)
        _, expected = reference(image, label)
        after = np.random.random_sample()
        np.random.seed(seed)
        y, x = mmseg.draw_crop(
            lambda y, x: label[y : y + CROP[0], x : x + CROP[1]],
            label.shape,
            oracle.GlobalDraws(),
            crop_size=CROP,
            cat_max_ratio=0.75,
        )
        np.testing.assert_array_equal(label[y : y + CROP[0], x : x + CROP[1]], expected)
        assert np.random.random_sample() == after


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((375, 500), (2048, 512), (512, 683)),  # reference: ADE20K at test time
        ((700, 4000), (2048, 512), (358, 2048)),
        ((1024, 2048), (2048, 1024), (1024, 2048)),
        ((2048, 1024), (2048, 1024), (2048, 1024)),
    ],
)
def test_keep_ratio_size(size, scale, expected):
    assert mmseg.keep_ratio_size(size, scale) == expected


def test_a_class_that_fills_its_share_is_found_as_by_counting_all_classes():
    def by_counting(label, share):
        counts = np.bincount(label.ravel(), minlength=256)[:255]
        return np.count_nonzero(counts) <= 1 or counts.max() / counts.sum() >= share

    rng = np.random.default_rng(0)
    labels = [np.full((32, 48), 255, np.uint8), np.zeros((32, 48), np.uint8)]
    for _ in range(300):
        classes = rng.integers(1, 200)
        label = (classes * rng.random((32, 48)) ** rng.uniform(0.2, 6)).astype(np.uint8)
        label[rng.random((32, 48)) < rng.choice([0, 0.3, 0.9])] = 255
        labels.append(label)
    hidden = np.full((64, 64), 9, np.uint8)
    hidden[::16, ::16] = np.arange(16).reshape(4, 4)  # all that the first, coarse count sees
    exact = np.repeat(np.array([0, 1, 2, 3], np.uint8), 4).reshape(4, 4)
    answers = []
    for label in [*labels, hidden, exact]:
        for share in (0.25, 0.5, 0.75, 0.99):
            answers.append(mmseg.one_class_fills(label, share))
            assert answers[-1] == by_counting(label, share)
    assert 0.1 < np.mean(answers) < 0.9
