"""Protocols that cut an image into windows: slide, official, official_ms.

The windows of one image go through the network in batches; each batch is added to a running sum at
the image's size.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fastfcn_jax.inference import exponentials
from fastfcn_jax.inference.merge import Labels, add_windows, choose
from fastfcn_jax.inference.network import Network
from fastfcn_jax.inference.plan import Group
from fastfcn_jax.inference.protocols import Interval
from fastfcn_jax.inference.rescale import Size, bilinear_matrix, resize_aligned, resize_image
from fastfcn_jax.inference.upsampling import axis_matrices, stack, taps_of, window_taps

_add = jax.jit(add_windows, donate_argnums=0)
_add_exponentials = jax.jit(exponentials.add_windows, donate_argnums=0)
_probabilities = jax.jit(exponentials.probabilities)


@functools.partial(jax.jit, static_argnames=("probabilities", "confidence", "threshold"))
def _choose(scores: Float[Array, "o w k"], **options) -> Labels:
    labels, sure = choose(scores, **options)
    return Labels(labels[None], None if sure is None else sure[None])


def labels(
    predictor: Network, image: Num[np.ndarray, "h w c"], group: Group, *, confidence: bool
) -> Labels:
    """Class indices of one image (a batch of one), on the device."""
    total = scores(predictor, image, group)
    official = predictor.protocol.is_official
    return _choose(
        total, probabilities=official, confidence=confidence, threshold=predictor.threshold
    )


def scores(
    predictor: Network, image: Num[np.ndarray, "h w c"], group: Group
) -> Float[Array, "oh ow k"]:
    """Mean logits (slide) or normalised sums of exponentials (official), with padded rows."""
    if predictor.protocol.is_official:
        return _official(predictor, image, group)
    return _slide(predictor, image, group)


def _slide(predictor, image, group):
    own = image.shape[:2]
    protocol = predictor.protocol
    (scale,) = protocol.scales(own)
    rows, columns = protocol.grid(scale)
    padded = protocol.windows.size
    height, width = (-(-side // 8) for side in padded)
    settings = {"align_corners": predictor.align_corners}
    y = axis_matrices(rows, scale[0], own[0], height, **settings)
    x = [taps_of(m) for m in axis_matrices(columns, scale[1], own[1], width, **settings)]
    exact = all(side >= window for side, window in zip(scale, padded, strict=True))
    scaled = resize_image(image, scale)
    total: Any = None
    for batch in _batches(rows, columns, predictor.batch_size):
        inputs, sizes = _cut(scaled, batch, padded, predictor.batch_size)
        maps = predictor.run(inputs, None if exact else sizes)
        if total is None:
            total = jnp.zeros((*group.padded_output, maps.shape[-1]), jnp.float32)
        weights_y = stack([y[w.row] for w in batch], group.padded_output[0], len(maps))
        weights_x = stack([x[w.column] for w in batch], group.padded_output[1], len(maps))
        total = _add(total, maps, weights_y, weights_x)
    return total


def _official(predictor, image, group):
    own = image.shape[:2]
    protocol = predictor.protocol
    side = protocol.windows.size[0]
    up = bilinear_matrix(-(-side // 8), side, align_corners=predictor.align_corners)
    state: Any = None
    for scale in protocol.scales(own):
        rows, columns = protocol.grid(scale)
        y, x = window_taps(rows, scale[0], own[0]), window_taps(columns, scale[1], own[1])
        scaled = resize_aligned(image, scale)
        for batch in _batches(rows, columns, predictor.batch_size):
            inputs, _ = _cut(scaled, batch, protocol.windows.size, predictor.batch_size)
            maps = predictor.run(inputs, None)
            mirrored = None
            if True in protocol.flips:
                mirrored = predictor.run(inputs[:, :, ::-1], None)
            if state is None:
                height, width = group.padded_output
                state = exponentials.start(height, width, maps.shape[-1])
            taps_y = stack([y[w.row] for w in batch], group.padded_output[0], len(maps))
            taps_x = stack([x[w.column] for w in batch], group.padded_output[1], len(maps))
            state = _add_exponentials(state, maps, mirrored, up, taps_y, taps_x)
    return _probabilities(state)


class _Window(NamedTuple):
    row: int  # index into the grid's rows
    column: int
    vertical: Interval
    horizontal: Interval


def _batches(rows, columns, batch_size: int) -> Iterator[list[_Window]]:
    pairs = itertools.product(enumerate(rows), enumerate(columns))
    grid = [_Window(i, j, vertical, horizontal) for (i, vertical), (j, horizontal) in pairs]
    for first in range(0, len(grid), batch_size):
        yield grid[first : first + batch_size]


def _cut(
    scaled: np.ndarray, windows: list[_Window], padded: Size, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of an image, padded with zeros to one size, and their sizes before padding."""
    batch = np.zeros((batch_size, *padded, scaled.shape[2]), scaled.dtype)
    sizes = np.ones((batch_size, 2), np.int32)
    for i, (_, _, (top, bottom), (left, right)) in enumerate(windows):
        part = scaled[top:bottom, left:right]
        batch[i, : part.shape[0], : part.shape[1]] = part
        sizes[i] = part.shape[:2]
    return batch, sizes
