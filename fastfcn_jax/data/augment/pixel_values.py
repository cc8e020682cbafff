"""Steps that change the pixels' values: CLAHE, gamma, blur, JPEG artefacts; by OpenCV.

`clahe` and `gamma` are mmsegmentation's `CLAHE` and `AdjustGamma`.
"""

from typing import Any

import cv2
import numpy as np

from fastfcn_jax.data.augment.mmseg import Colors, Draws, Image, Label
from fastfcn_jax.data.resize import by_fours


def clahe(
    image: Colors,
    label: Label,
    rng: Draws,
    *,
    prob: float,
    clip: float,
    tiles: tuple[int, int],
) -> tuple[Colors, Label]:
    """Equalises the histogram of each channel, tile by tile, with limited contrast."""
    if not _happens(rng, prob):
        return image, label
    equalise = cv2.createCLAHE(clip, tiles).apply
    channels = [equalise(np.ascontiguousarray(image[..., k])) for k in range(image.shape[2])]
    return np.dstack(channels), label


def gamma(
    image: Colors, label: Label, rng: Draws, *, prob: float, range: tuple[float, float]
) -> tuple[Colors, Label]:
    """v -> 255 (v / 255)^(1 / gamma), rounded down: above 1 brighter, below 1 darker."""
    if not _happens(rng, prob):
        return image, label
    exponent = 1.0 / rng.uniform(*range)
    table = np.array([(i / 255.0) ** exponent * 255 for i in np.arange(256)]).astype(np.uint8)
    return cv2.LUT(image, table), label


def blur(
    image: Image, label: Label, rng: Draws, *, prob: float, sigma: tuple[float, float]
) -> tuple[Image, Label]:
    """Gaussian blur (`cv2.GaussianBlur`, whose kernel's size follows from sigma in pixels)."""
    if not _happens(rng, prob):
        return image, label
    width = rng.uniform(*sigma)
    return by_fours(lambda x: cv2.GaussianBlur(x, (0, 0), width), image), label


def jpeg(
    image: Colors, label: Label, rng: Draws, *, prob: float, quality: tuple[int, int]
) -> tuple[Colors, Label]:
    """Stores the image as JPEG of a quality from low to high, inclusive, and reads it again."""
    if not _happens(rng, prob):
        return image, label
    chosen = int(rng.integers(quality[0], quality[1] + 1))
    stored = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, chosen])[1]
    read: Any = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB), label


def _happens(rng: Draws, prob: float) -> bool:
    """No draw for 1: mmsegmentation's steps without a probability make none."""
    return prob >= 1.0 or rng.random() < prob
