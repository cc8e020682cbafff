"""Images too large to scale down or to hold as feature maps: overlapping tiles."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.protocols import Interval
from fastfcn_jax.inference.resize import Size

MIN_TILE = 32


def tiles(length: int, tile: int, margin: int) -> Iterator[tuple[Interval, Interval]]:
    """(pixels that the network sees, pixels that are kept) of each tile along one axis.

    What is kept lies at least `margin` inside the tile, but for the image's own
    border; together the kept parts cover the axis once.
    """
    if length <= tile:
        yield (0, length), (0, length)
        return
    kept = 0
    while kept < length:
        start = min(max(kept - margin, 0), length - tile)
        stop = start + tile
        until = length if stop == length else stop - margin
        yield (start, stop), (kept, until)
        kept = until


def tile_sizes(size: Size, tile: int) -> list[Size]:
    """(height, width) of every tile of an image."""
    rows, columns = ([stop - start for (start, stop), _ in tiles(n, tile, tile // 8)] for n in size)
    return list(itertools.product(rows, columns))


def predict_tiles(
    predictor: Predictor, image: UInt8[np.ndarray, "h w 3"], tile: int
) -> UInt8[np.ndarray, "h w"]:
    """Class indices of an image of any size at its own resolution.

    Beyond the image and its labels, memory is that of `predictor.batch_size`
    tiles, whatever the image's size.

    Args:
      predictor: of a protocol that does not scale its images down.
      tile: side of a tile in pixels; an eighth of it is margin, predicted for context and dropped.

    Raises:
      UserError: tiles too small to hold more than margin.
    """
    if tile < MIN_TILE:
        raise UserError(f"tiles of {tile} pixels are too small; give {MIN_TILE} or more.")
    margin = tile // 8
    labels = np.empty(image.shape[:2], np.uint8)

    def windows():
        for rows in tiles(image.shape[0], tile, margin):
            for columns in tiles(image.shape[1], tile, margin):
                (top, bottom), (left, right) = rows[0], columns[0]
                yield (rows, columns), image[top:bottom, left:right]

    for (rows, columns), prediction in predictor.stream(windows()):
        (top, _), (first, last) = rows
        (left, _), (begin, end) = columns
        inner = prediction.labels[first - top : last - top, begin - left : end - left]
        labels[first:last, begin:end] = inner
    return labels
