"""The official evaluator's merge: a sum of unnormalised exponentials, without overflow.

The reference adds exp(logits) of all windows and scales, resized bilinearly, and takes the class
with the largest sum. In float32 exp overflows above 88.7. Subtracting one value for the whole image
would not do: pixels with small logits would underflow if others have large ones. So every pixel
keeps the largest logit that has contributed to it so far, its shift, and sums relative to that, as
in a running log-sum-exp. The result is the reference's, whatever the magnitude of the logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fastfcn_jax.inference.merge import BLOCK_ROWS

_NOTHING = -1e30  # shift of a pixel without any logit yet; finite, as inf - inf would be NaN


class Sums(NamedTuple):
    """The reference's sums are sums[..., k] * exp(shift)."""

    shift: Float[Array, "o w"]
    sums: Float[Array, "o w k"]


AxisTaps = tuple[Int[Array, "n _ 2"], Float[Array, "n _ 2"]]


def start(height: int, width: int, num_classes: int) -> Sums:
    """The empty sums of an image; `height` must be a multiple of BLOCK_ROWS."""
    shift = jnp.full((height, width), _NOTHING, jnp.float32)
    return Sums(shift, jnp.zeros((height, width, num_classes), jnp.float32))


def add_windows(
    state: Sums,
    logits: Float[Array, "n h h k"],
    mirrored: Float[Array, "n h h k"] | None,
    up: Float[Array, "s h"],
    rows: AxisTaps,
    columns: AxisTaps,
) -> Sums:
    """Adds the logits of n windows of one image, and of their flipped copies.

    Args:
      up: matrix that resizes logits to their window, for rows and for columns.
      rows, columns: `upsampling.window_taps` of each window.
    """

    def block(arguments):
        part, taps = arguments

        def one(carry, window):
            index, maps, flipped = window
            inner = tuple(a[index] for a in taps)
            outer = tuple(a[index] for a in columns)
            return _add_one(carry, maps, flipped, up, inner, outer), None

        windows = (jnp.arange(logits.shape[0]), logits, mirrored)
        return jax.lax.scan(one, part, windows)[0]

    parts = jax.tree.map(lambda a: a.reshape(-1, BLOCK_ROWS, *a.shape[1:]), state)
    split = tuple(jnp.moveaxis(a.reshape(a.shape[0], -1, BLOCK_ROWS, 2), 1, 0) for a in rows)
    result = jax.lax.map(block, (parts, split))
    return jax.tree.map(lambda a, b: a.reshape(b.shape), result, state)


def _add_one(state: Sums, logits, mirrored, up, rows, columns) -> Sums:
    """Adds one window to some rows of the image."""
    (row, row_weight), (column, column_weight) = rows, columns
    parts = []
    for i in range(2):
        z = _window_rows(logits, up, row[:, i])
        if mirrored is not None:
            z = z + _window_rows(mirrored, up, row[:, i])[:, ::-1]
        peak = z.max(axis=-1)
        relative = jnp.exp(z - peak[..., None])
        for j in range(2):
            weight = row_weight[:, i, None] * column_weight[None, :, j]
            peaks = jnp.where(weight > 0, peak[:, column[:, j]], jnp.float32(_NOTHING))
            parts.append((weight, peaks, relative[:, column[:, j]]))
    shift = state.shift
    for _, peaks, _ in parts:
        shift = jnp.maximum(shift, peaks)
    sums = state.sums * jnp.exp(state.shift - shift)[..., None]
    for weight, peaks, relative in parts:
        sums = sums + (weight * jnp.exp(peaks - shift))[..., None] * relative
    return Sums(shift, sums)


def _window_rows(logits, up, row) -> Float[Array, "r s k"]:
    """Some rows of the logits resized to their window."""
    lines = jnp.einsum("rh,hvk->rvk", up[row], logits, precision="highest")
    return jnp.einsum("sv,rvk->srk", up, lines, precision="highest").transpose(1, 0, 2)


def probabilities(state: Sums) -> Float[Array, "o w k"]:
    """The sums, normalised to 1 over the classes."""
    return state.sums / state.sums.sum(axis=-1, keepdims=True)
