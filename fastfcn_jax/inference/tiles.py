"""Predicts images at their own resolution in overlapping tiles, with bounded memory."""

import itertools
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.protocols import Interval
from fastfcn_jax.inference.rescale import Size

MIN_TILE = 32


@runtime_checkable
class Pixels(Protocol):
    """An array, or a file that is read like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, window: tuple[slice, slice], /) -> np.ndarray: ...


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
    """Class indices of an image of any size at its own resolution; see `predict_bands`."""
    labels = np.empty(image.shape[:2], np.uint8)
    for (first, last), band in predict_bands(predictor, image, tile):
        labels[first:last] = band
    return labels


def predict_bands(
    predictor: Predictor, image: Pixels, tile: int
) -> Iterator[tuple[Interval, UInt8[np.ndarray, "_ w"]]]:
    """Yields (rows, their class indices) from the top to the bottom of an image of any size.

    Besides the image, a band and `predictor.batch_size` tiles are in memory at a time.

    Args:
      predictor: its protocol must not scale images down.
      image: (h, w, c), or a file that is read like such an array.
      tile: side of a tile in pixels; a margin of one eighth gives context and is discarded.

    Raises:
      UserError: the tiles are too small.
    """
    if tile < MIN_TILE:
        raise UserError(f"tiles of {tile} pixels are too small; give {MIN_TILE} or more.")
    height, width = image.shape[:2]
    across = list(tiles(width, tile, tile // 8))

    def windows():
        for rows in tiles(height, tile, tile // 8):
            for columns in across:
                (top, bottom), (left, right) = rows[0], columns[0]
                yield (rows, columns), image[top:bottom, left:right]

    # All tiles have one size, so the predictor answers in order.
    band = np.empty((0, width), np.uint8)
    for (rows, columns), prediction in predictor.stream(windows()):
        (top, _), (first, last) = rows
        (left, _), (begin, end) = columns
        if begin == 0:
            band = np.empty((last - first, width), np.uint8)
        band[:, begin:end] = prediction.labels[first - top : last - top, begin - left : end - left]
        if end == width:
            yield (first, last), band
