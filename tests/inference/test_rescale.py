"""Test-time sizes compared with mmcv, bilinear weights with PyTorch."""

import cv2
import numpy as np
import pytest

from fastfcn_jax.inference.rescale import bilinear_matrix, keep_ratio_size, resize_image


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((1024, 2048), (2048, 1024), (1024, 2048)),
        ((375, 500), (2048, 512), (512, 683)),
        ((700, 4000), (2048, 512), (358, 2048)),
        ((500, 375), (2048, 512), (683, 512)),
        ((1, 3000), (1024, 512), (1, 1024)),
        ((3000, 1), (1024, 512), (1024, 1)),
    ],
)
def test_keep_ratio_size(size, scale, expected):
    assert keep_ratio_size(size, scale) == expected


def test_sizes_equal_mmcv():
    mmcv = pytest.importorskip("mmcv")
    rng = np.random.default_rng(0)
    for height, width, *scale in rng.integers(20, 3000, (500, 4)).tolist():
        expected = mmcv.rescale_size((width, height), tuple(scale))
        assert keep_ratio_size((height, width), tuple(scale)) == expected[::-1]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(86, 683), (64, 512), (683, 500), (512, 2000), (1, 7), (7, 1), (9, 9)]
)
def test_bilinear_matrix_equals_torch(inputs, outputs, align_corners):
    torch = pytest.importorskip("torch")
    signal = np.random.default_rng(0).normal(size=(1, 1, inputs, 1)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(signal), (outputs, 1), mode="bilinear", align_corners=align_corners
    )
    ours = bilinear_matrix(inputs, outputs, align_corners=align_corners) @ signal[0, 0]
    np.testing.assert_allclose(ours, expected[0, 0].numpy(), atol=2e-6)


def test_images_are_resized_by_opencv_without_antialiasing():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = cv2.resize(image, (30, 20), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_image(image, (20, 30)), expected)
    assert resize_image(image, (40, 60)) is image
