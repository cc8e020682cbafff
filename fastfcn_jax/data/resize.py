"""Bilinear resizing by OpenCV, for any number of channels."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Num

# warpAffine interpolates two channels less exactly than one, three or four.
_REST = ([], [1], [1, 1], [3])


def resize(image: Num[np.ndarray, "h w c"], size: tuple[int, int]) -> Num[np.ndarray, "h2 w2 c"]:
    """Scales to (height, width): half-pixel centres, no antialiasing; uint8 in fixed point."""
    return by_fours(lambda x: cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR), image)


def by_fours(
    change: Callable[[np.ndarray], np.ndarray], image: Num[np.ndarray, "h w c"]
) -> Num[np.ndarray, "h2 w2 c"]:
    """Applies a function of OpenCV, which takes up to four channels, to any number of them."""
    channels = image.shape[2]
    if channels in (3, 4):
        return change(image)
    counts = [4] * (channels // 4) + _REST[channels % 4]
    stops = np.cumsum(counts).tolist()
    pairs = zip(counts, stops, strict=True)
    parts = [change(np.ascontiguousarray(image[..., stop - n : stop])) for n, stop in pairs]
    # Of one channel OpenCV returns no axis.
    whole = [part[..., None] if part.ndim == 2 else part for part in parts]
    return whole[0] if len(whole) == 1 else np.concatenate(whole, axis=2)
