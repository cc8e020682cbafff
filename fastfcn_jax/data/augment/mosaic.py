"""Four images of the data set as one: mmsegmentation's `RandomMosaic`."""

import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.data.augment.mmseg import Draws, Image, Label
from fastfcn_jax.data.source import IGNORE_LABEL, Source

Interval = tuple[int, int]


def mosaic(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    source: Source,
    prob: float,
    size: tuple[int, int],
    center: tuple[float, float],
) -> tuple[Num[np.ndarray, "h2 w2 c"], UInt8[np.ndarray, "h2 w2"]]:
    """The image and three others of the source around a random point, twice `size` large.

    The others are as stored, so the mosaic comes first. What none covers is black and ignored.

    Args:
      size: (height, width) that each image is scaled to fit.
      center: smallest and largest place of the point, as shares of `size`.
    """
    if rng.random() >= prob:
        return image, label
    others = [source[int(rng.integers(0, len(source)))] for _ in range(3)]
    x, y = (int(rng.uniform(*center) * size[axis]) for axis in (1, 0))
    height, width = 2 * size[0], 2 * size[1]
    canvas = np.zeros((height, width, image.shape[2]), image.dtype)
    labels = np.full((height, width), IGNORE_LABEL, np.uint8)
    pairs = [(image, label), *((sample.image, sample.label) for sample in others)]
    for place, (part, its_label) in enumerate(pairs):
        h, w = _fitted(its_label.shape, size)
        below, right = divmod(place, 2)
        rows, from_rows = _span(y, h, height, bool(below))
        columns, from_columns = _span(x, w, width, bool(right))
        to, taken = (slice(*rows), slice(*columns)), (slice(*from_rows), slice(*from_columns))
        canvas[to] = mmseg.resize_image(part, h, w)[taken]
        labels[to] = mmseg.resize_label(its_label, h, w)[taken]
    return canvas, labels


def _fitted(own: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image scaled to fit `size`; mmseg rounds down here."""
    factor = min(size[0] / own[0], size[1] / own[1])
    return max(int(own[0] * factor), 1), max(int(own[1] * factor), 1)


def _span(center: int, length: int, whole: int, after: bool) -> tuple[Interval, Interval]:
    """Along one axis: pixels of the mosaic that a part covers, and its pixels that go there."""
    if after:
        covered = min(center + length, whole) - center
        return (center, center + covered), (0, covered)
    covered = min(center, length)
    return (center - covered, center), (length - covered, length)
