"""A convolution over full maps and upsampled pooled grids side by side, without upsampling.

conv([x, up(p)]) = conv(x, W_x) + conv(up(p), W_p). Bilinear upsampling mixes positions and the
kernel's taps mix channels, so for the grids the two commute: multiply the few pooled positions
by every tap's channel matrix first, then spread the products by a fixed operator of
(row, column) weights, zero where a tap falls outside the map (its padding comes after the
upsampling). For PSP's four grids of 50 positions this is 0.3 instead of 77 of the bottleneck's
155 G multiply-accumulates at 512x1024.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.convolution import convolve
from fastfcn_jax.models.ops.precision import wide_type
from fastfcn_jax.models.spatial import Size, bilinear_taps, blank_outside, resize


class Grid(NamedTuple):
    """A pooled map that covers the true extent of the full maps beside it."""

    values: Float[Array, "b s t c"]


Part = Float[Array, "b _ _ _"] | Grid


def channels(parts: Sequence[Part]) -> int:
    """Returns the channels of all parts together."""
    return sum((p.values if isinstance(p, Grid) else p).shape[-1] for p in parts)


def joint_conv(
    parts: Sequence[Part],
    kernel: Float[Array, "p q c k"],
    *,
    align_corners: bool = False,
    size: Size | None = None,
) -> Float[Array, "b h w k"]:
    """Convolves the parts' concatenation, grids upsampled to the size of the maps.

    parts: in the channel order of the kernel; at least one full map.
    size: true sizes of the full maps in a padded batch; the maps may hold anything beyond.
    """
    maps, map_kernels, grids, grid_kernels = [], [], [], []
    start = 0
    for part in parts:
        end = start + channels([part])
        if isinstance(part, Grid):
            grids.append(part.values)
            grid_kernels.append(kernel[:, :, start:end])
        else:
            maps.append(part)
            map_kernels.append(kernel[:, :, start:end])
        start = end
    full = maps[0] if len(maps) == 1 else jnp.concatenate(maps, axis=-1)
    full_kernel = map_kernels[0] if len(maps) == 1 else jnp.concatenate(map_kernels, axis=2)
    if kernel.shape[0] > 1:
        full = blank_outside(full, size)
    y = convolve(full, full_kernel)
    if grids:
        y = y + spread(grids, grid_kernels, y.shape[1:3], align_corners, size)
    return y


def spread(
    grids: Sequence[Float[Array, "b _ _ _"]],
    kernels: Sequence[Float[Array, "p q _ k"]],
    shape: Sequence[int],
    align_corners: bool,
    size: Size | None,
) -> Float[Array, "b h w k"]:
    """Returns the sum of the convolutions of all grids, each upsampled to `shape`."""
    rows, columns = (None, None) if size is None else (size[:, 0], size[:, 1])
    by_row, column_weights = [], []
    for grid, kernel in zip(grids, kernels, strict=True):
        b, s, t, _ = grid.shape
        p, q, _, k = kernel.shape
        products = jnp.einsum("bijc,pqck->bpijqk", grid, kernel).reshape(b, p * s, t * q, k)
        weights = _tap_weights(shape[0], s, p, rows, align_corners, wide_type(grid))
        weights = weights.astype(grid.dtype)
        equation = "hm,bmnk->bhnk" if size is None else "bhm,bmnk->bhnk"
        by_row.append(jnp.einsum(equation, weights, products))
        # (position, tap) in the order of the products' columns.
        weights = _tap_weights(shape[1], t, q, columns, align_corners, wide_type(grid))
        weights = weights.reshape(*weights.shape[:-1], q, t).swapaxes(-1, -2)
        column_weights.append(weights.reshape(*weights.shape[:-2], t * q).astype(grid.dtype))
    equation = "wn,bhnk->bhwk" if size is None else "bwn,bhnk->bhwk"
    return jnp.einsum(
        equation, jnp.concatenate(column_weights, -1), jnp.concatenate(by_row, axis=2)
    )


def _tap_weights(length, positions, taps, n, align_corners, dtype) -> Float[Array, "*b n m"]:
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


def joint_conv_direct(
    parts: Sequence[Part],
    kernel: Float[Array, "p q c k"],
    *,
    align_corners: bool = False,
    size: Size | None = None,
) -> Float[Array, "b h w k"]:
    """The same by upsampling every grid and concatenating."""
    shape = next(part for part in parts if not isinstance(part, Grid)).shape[1:3]
    maps = [
        resize(part.values, shape, align_corners=align_corners, out_size=size)
        if isinstance(part, Grid)
        else part
        for part in parts
    ]
    return convolve(blank_outside(jnp.concatenate(maps, axis=-1), size), kernel)
