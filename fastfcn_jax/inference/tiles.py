"""Predicts images at their own resolution in overlapping tiles, with bounded memory."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.protocols import Interval
from fastfcn_jax.inference.rescale import Size

MIN_TILE = 32


def tiles(length: int, tile: int, margin: int) -> Iterator[tuple[Interval, Interval]]:
    """Yields (pixels of the tile, pixels of it that are kept) along one axis.

    The kept part is at least `margin` away from the tile's ends, except at the border of the
    image. The kept parts cover the axis exactly once.
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
    predictor: Predictor, image: Num[np.ndarray, "h w c"], tile: int
) -> UInt8[np.ndarray, "h w"]:
    """Class indices of an image of any size at its own resolution.

    Besides the image and its labels, `predictor.batch_size` tiles are in memory at a time.

    Args:
      predictor: its protocol must not scale images down.
      tile: side of a tile in pixels; a margin of one eighth gives context and is discarded.

    Raises:
      UserError: the tiles are too small.
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
