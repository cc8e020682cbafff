"""A convolution over full maps and upsampled pooled grids side by side, without upsampling.

conv([x, up(p)]) = conv(x, W_x) + conv(up(p), W_p). Bilinear upsampling mixes positions and the
kernel's taps mix channels, so for the grids the two commute: multiply the few pooled positions
by every tap's channel matrix first, then spread the products by a fixed operator of
(row, column) weights, zero where a tap falls outside the map (its padding comes after the
upsampling). For PSP's four grids of 50 positions this is 0.3 instead of 77 of the bottleneck's
155 G multiply-accumulates at 512x1024.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.bilinear import bilinear_taps
from fastfcn_jax.models.ops.precision import wide_type
from fastfcn_jax.models.padding import Size, blank_outside


class Grid(NamedTuple):
    """A pooled map that covers the true extent of the full maps that it is joined to."""

    values: Float[Array, "b s t c"]


Part = Float[Array, "b _ _ _"] | Grid


def channels(parts: Sequence[Part]) -> int:
    """Returns the channels of all parts together."""
    return sum(_values(part).shape[-1] for part in parts)


def _values(part):
    return part.values if isinstance(part, Grid) else part


def convolve(
    forms: Any,
    parts: Sequence[Part],
    kernel: Float[Array, "p q c k"],
    align_corners: bool = False,
    size: Size | None = None,
) -> Float[Array, "b h w k"]:
    """Convolves the parts' concatenation, grids upsampled to the size of the maps.

    forms: the `Forms` of the operations inside.
    parts: in the channel order of the kernel; at least one full map.
    size: true sizes of the full maps in a padded batch; the maps may hold anything beyond.
    """
    cuts = list(itertools.accumulate(channels([part]) for part in parts))
    pairs = list(zip(parts, jnp.split(kernel, cuts[:-1], axis=2), strict=True))
    maps, kernels = zip(*(pair for pair in pairs if not isinstance(pair[0], Grid)), strict=True)
    full = blank_outside(jnp.concatenate(maps, axis=-1), size)
    y = forms.convolve(full, jnp.concatenate(kernels, axis=2))
    grids = [(part.values, kernel) for part, kernel in pairs if isinstance(part, Grid)]
    return y + _spread(grids, y.shape[1:3], align_corners, size) if grids else y


def convolve_plain(
    forms: Any,
    parts: Sequence[Part],
    kernel: Float[Array, "p q c k"],
    align_corners: bool = False,
    size: Size | None = None,
) -> Float[Array, "b h w k"]:
    """The same by upsampling every grid and concatenating."""
    shape = next(part for part in parts if not isinstance(part, Grid)).shape[1:3]
    maps = [
        forms["resize"](part.values, shape, align_corners=align_corners, out_size=size)
        if isinstance(part, Grid)
        else part
        for part in parts
    ]
    return forms.convolve(blank_outside(jnp.concatenate(maps, axis=-1), size), kernel)


def _spread(grids, shape, align_corners, size) -> Float[Array, "b h w k"]:
    """Returns the sum of the convolutions of all (grid, kernel), each upsampled to `shape`."""
    rows, columns = (None, None) if size is None else (size[:, 0], size[:, 1])
    by_row, column_weights = [], []
    for grid, kernel in grids:
        b, s, t, _ = grid.shape
        p, q, _, k = kernel.shape
        products = jnp.einsum("bijc,pqck->bpijqk", grid, kernel).reshape(b, p * s, t * q, k)
        weights = tap_weights(shape[0], s, p, rows, align_corners, wide_type(grid))
        equation = "hm,bmnk->bhnk" if size is None else "bhm,bmnk->bhnk"
        by_row.append(jnp.einsum(equation, weights.astype(grid.dtype), products))
        # (position, tap) in the order of the products' columns.
        weights = tap_weights(shape[1], t, q, columns, align_corners, wide_type(grid))
        weights = weights.reshape(*weights.shape[:-1], q, t).swapaxes(-1, -2)
        column_weights.append(weights.reshape(*weights.shape[:-2], t * q).astype(grid.dtype))
    equation = "wn,bhnk->bhwk" if size is None else "bwn,bhnk->bhwk"
    return jnp.einsum(
        equation, jnp.concatenate(column_weights, -1), jnp.concatenate(by_row, axis=2)
    )


def tap_weights(length, positions, taps, n, align_corners, dtype) -> Float[Array, "*b n m"]:
    """Returns the weight of (tap, position) at each of `length` places along one axis.

    n: true extent (b,) within `length`, or None for all of it. Shape ([b,] length, taps * s).
    """
    low, high, weight = bilinear_taps(
        length, positions, length if n is None else n, align_corners, dtype
    )
    upsampled = jax.nn.one_hot(low, positions, dtype=dtype) * (1 - weight)[..., None]
    upsampled = upsampled + jax.nn.one_hot(high, positions, dtype=dtype) * weight[..., None]
    if n is not None:
        covered = jnp.arange(length)[None, :, None] < n[:, None, None]
        upsampled = jnp.where(covered, upsampled, 0.0)
    margin = taps // 2
    lead = ((0, 0),) * (upsampled.ndim - 2)
    padded = jnp.pad(upsampled, (*lead, (margin, margin), (0, 0)))
    return jnp.concatenate([padded[..., i : i + length, :] for i in range(taps)], axis=-1)
