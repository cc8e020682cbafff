"""Interpolation weights from the logits of a scaled image's windows to the image's own size."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from fastfcn_jax.inference.protocols import Interval
from fastfcn_jax.inference.rescale import bilinear_matrix, bilinear_taps

# Each output of two bilinear resizes, the first by about 8, depends on at most three inputs.
TAPS = 3


class Taps(NamedTuple):
    """A sparse matrix: each row has the weights of TAPS neighbouring inputs from `start` on."""

    start: Int[np.ndarray | Array, "*b o"]
    weight: Float[np.ndarray | Array, "*b o t"]


def axis_matrices(
    intervals: tuple[Interval, ...],
    scaled: int,
    own: int,
    map_length: int,
    *,
    flip: bool = False,
    align_corners: bool = False,
) -> list[Float[np.ndarray, "o m"]]:
    """One matrix for each window along one axis; the scores are the sum of Y L X' over windows L.

    The steps are mmsegmentation's: resize the logits to their window, average where windows
    overlap, undo the flip, resize to the image.

    Args:
      intervals: pixels of each window on the scaled image.
      scaled, own: lengths of the scaled image and of the image itself.
      map_length: padded length of a window's logits; padding has weight 0.
      flip: the network's input was flipped (columns only).
    """
    covered = np.zeros((scaled, 1), np.float32)  # number of windows that cover each row or column
    for start, stop in intervals:
        covered[start:stop] += 1
    matrices = []
    for start, stop in intervals:
        true = -(-(stop - start) // 8)
        matrix = np.zeros((scaled, map_length), np.float32)
        up = bilinear_matrix(true, stop - start, align_corners=align_corners)
        matrix[start:stop, :true] = up
        matrix /= covered
        if flip:
            matrix = matrix[::-1]
        if scaled != own:
            low, high, weight = bilinear_taps(scaled, own, align_corners=align_corners)
            weight = weight[:, None]
            matrix = matrix[low] * (1 - weight) + matrix[high] * weight
        matrices.append(matrix)
    return matrices


def taps_of(matrix: Float[np.ndarray, "o m"]) -> Taps:
    """A matrix of `axis_matrices` in sparse form."""
    if matrix.shape[1] < TAPS:
        matrix = np.pad(matrix, ((0, 0), (0, TAPS - matrix.shape[1])))
    start = np.minimum((matrix != 0).argmax(axis=1), matrix.shape[1] - TAPS)
    weight = np.take_along_axis(matrix, start[:, None] + np.arange(TAPS), axis=1)
    assert np.count_nonzero(weight) == np.count_nonzero(matrix), "more than three neighbours"
    return Taps(start.astype(np.int32), weight)


def window_taps(
    intervals: tuple[Interval, ...], scaled: int, own: int
) -> list[tuple[Int[np.ndarray, "o 2"], Float[np.ndarray, "o 2"]]]:
    """For each window of the official evaluator, along one axis: the two pixels of the window that
    each pixel of the image interpolates, and their weights.

    Weights are 0 outside the window and divided by the number of windows where they overlap.
    """
    low, high, fraction = bilinear_taps(scaled, own, align_corners=True)
    covered = np.zeros(max(stop for _, stop in intervals), np.float32)
    for start, stop in intervals:
        covered[start:stop] += 1
    position = np.stack([low, high], axis=1)
    weight = np.stack([1 - fraction, fraction], axis=1) / covered[position]
    taps = []
    for start, stop in intervals:
        inside = (position >= start) & (position < stop)
        index = np.where(inside, position - start, 0).astype(np.int32)
        taps.append((index, np.where(inside, weight, 0).astype(np.float32)))
    return taps


def stack(items: Sequence, length: int, count: int):
    """Stacks trees of arrays of weights, zero-padded to `length` rows and `count` items."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        result = np.zeros((count, length, *arrays[0].shape[1:]), arrays[0].dtype)
        for i, array in enumerate(arrays):
            result[i, : len(array)] = array
        return result

    return jax.tree.map(join, *items)
