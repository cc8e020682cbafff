"""Sizes and bilinear weights of test-time resizing, as OpenCV, mmcv and PyTorch compute them."""

import numpy as np
from jaxtyping import Float, Int, Num

from fastfcn_jax.data.resize import resize

Size = tuple[int, int]  # height, width


def keep_ratio_size(size: Size, scale: tuple[int, int]) -> Size:
    """Largest (height, width) with the same aspect ratio that fits `scale`, in either orientation.

    Rounded as by `mmcv.rescale_size`: int(side * factor + 0.5), but never to 0.
    """
    height, width = size
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize_image(image: Num[np.ndarray, "h w c"], size: Size) -> Num[np.ndarray, "h2 w2 c"]:
    """OpenCV's INTER_LINEAR: half-pixel centres, no antialiasing; uint8 in fixed point."""
    if image.shape[:2] == size:
        return image
    return resize(image, size)


def bilinear_taps(
    inputs: int, outputs: int, *, align_corners: bool = False
) -> tuple[Int[np.ndarray, " o"], Int[np.ndarray, " o"], Float[np.ndarray, " o"]]:
    """Indices of the two inputs that each output of PyTorch's bilinear resize interpolates.

    Coordinates are computed in float32 as in PyTorch; exact ones would differ by up to 3e-4.

    Returns:
      index of the lower input, index of the higher one, weight of the higher one.
    """
    position = np.arange(outputs, dtype=np.float32)
    if align_corners:
        step = np.float32(inputs - 1) / np.float32(max(outputs - 1, 1))
        source = position * step if outputs > 1 else position * np.float32(0)
    else:
        step = np.float32(inputs) / np.float32(outputs)
        # PyTorch is compiled with a fused multiply-add here, which rounds once, not twice.
        exact = np.float64(position + np.float32(0.5)) * np.float64(step) - 0.5
        source = np.maximum(exact.astype(np.float32), np.float32(0))
    low = np.minimum(source.astype(np.int32), inputs - 1)
    return low, np.minimum(low + 1, inputs - 1), source - low.astype(np.float32)


def bilinear_matrix(
    inputs: int, outputs: int, *, align_corners: bool = False
) -> Float[np.ndarray, "o i"]:
    """The weights of `bilinear_taps` as a matrix."""
    low, high, fraction = bilinear_taps(inputs, outputs, align_corners=align_corners)
    matrix = np.zeros((outputs, inputs), np.float32)
    rows = np.arange(outputs)
    np.add.at(matrix, (rows, low), np.float32(1) - fraction)
    np.add.at(matrix, (rows, high), fraction)
    return matrix


def resize_aligned(image: Num[np.ndarray, "h w c"], size: Size) -> Float[np.ndarray, "h2 w2 c"]:
    """PyTorch's bilinear resize with align_corners, as in the official evaluator.

    The official evaluator normalises first; as normalising is linear, the order does not matter.
    """
    result = image.astype(np.float32)
    for axis in (0, 1):
        low, high, weight = bilinear_taps(image.shape[axis], size[axis], align_corners=True)
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        below, above = np.take(result, low, axis), np.take(result, high, axis)
        result = below * (1 - weight) + above * weight
    return result
