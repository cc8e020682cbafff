"""Resizing, pooling and borders of feature maps, alone or inside a padded batch.

`size` is everywhere the true (height, width) of each image's map within a padded array, or
None where the whole array is the map. It may be traced, so one compiled program serves images
of many sizes. Coordinates are computed in float32 because PyTorch does: more exact ones differ
from it by up to 3e-4.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fastfcn_jax.models.ops.precision import wide_type, widen

Size = Int[Array, "b 2"]

# The two sums over runs of pixels up to this long compute twice what they add up; both sums over
# longer ones are one reduction, which costs writing two maps of 1 / length the size.
SHORT_RUN = 4


def at_stride(size: Size | None, stride: int) -> Size | None:
    """Returns the true sizes of maps after down-sampling by `stride` (a power of two)."""
    return None if size is None else -(-size // stride)


def inside(size: Size, height: int, width: int) -> Bool[Array, "b h w 1"]:
    """Returns where a padded (height, width) map shows its image."""
    rows = jnp.arange(height)[None, :] < size[:, :1]
    columns = jnp.arange(width)[None, :] < size[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def blank_outside(x: Float[Array, "b h w c"], size: Size | None) -> Float[Array, "b h w c"]:
    """Sets what lies beyond each image's true size to 0, as zero padding would have it."""
    if size is None:
        return x
    return jnp.where(inside(size, x.shape[1], x.shape[2]), x, jnp.zeros((), x.dtype))


def bilinear_taps(length: int, n_in, n_out, align_corners: bool, dtype: Any = np.float32):
    """Returns (low index, high index, weight of high) for each of `length` output positions.

    `n_in` and `n_out` are the sizes that the coordinates follow: Python ints give arrays
    (length,), a traced size of shape (b,) gives (b, length). `dtype` is that of the coordinates.
    """
    if isinstance(n_in, int) and isinstance(n_out, int):
        xp = np
    else:
        xp = jnp
        n_in, n_out = (jnp.asarray(n, jnp.int32).reshape(-1, 1) for n in (n_in, n_out))
    real = np.dtype(dtype).type
    position = xp.arange(length, dtype=real)
    last = xp.asarray(n_in - 1, np.int32)
    if align_corners:
        steps = xp.maximum(xp.asarray(n_out - 1, real), real(1))
        source = position * (xp.where(n_out > 1, last, 0).astype(real) / steps)
    else:
        scale = xp.asarray(n_in, real) / xp.asarray(n_out, real)
        # PyTorch's kernels contract this to one fused multiply-add: a single rounding, which
        # float64 gives NumPy. A traced size leaves the contraction to XLA.
        wide = np.float64 if xp is np else real
        source = (position + real(0.5)).astype(wide) * scale.astype(wide) - wide(0.5)
        source = xp.maximum(source.astype(real), real(0))
    low = xp.minimum(xp.floor(source).astype(np.int32), last)
    high = xp.minimum(low + np.int32(1), last)
    weight = xp.clip(source - low.astype(real), real(0), real(1))
    return low, high, weight


def _interpolate(x, axis: int, taps):
    """Interpolates float32 x along an axis; `taps` are those of `bilinear_taps`."""
    low, high, weight = taps
    if low.ndim == 1:
        return _interpolate_alike(x, axis, _Taps(low, high, weight, x.shape[axis]))
    low, high = (jnp.broadcast_to(i, (x.shape[0], i.shape[1])) for i in (low, high))
    pick = jax.vmap(lambda image, i: jnp.take(image, i, axis=axis - 1, mode="clip"))
    return _blend(pick(x, low), pick(x, high), weight, axis)


def _blend(low, high, weight, axis):
    shape = [weight.shape[0], 1, 1, 1]
    shape[axis] = weight.shape[1]
    weight = jnp.reshape(weight, shape)
    return low * (1 - weight) + high * weight


class _Taps:
    """Taps along an axis of `length`, all images alike; hashed by identity."""

    def __init__(self, low, high, weight, length):
        self.low, self.high, self.weight, self.length = low, high, weight, length

    def runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (outputs, their weights for the low input, for the high), all (longest, runs).

        Run i holds the outputs between inputs i - 1 and i, and is filled up with weights of 0. What
        lies before input 0 has its whole weight for that, what lies behind the last for the last.
        """
        before = (self.low == 0) & (self.weight == 0)
        behind = self.low == self.high
        run = np.where(before, 0, self.low + 1)
        place = np.arange(len(run)) - np.searchsorted(run, run)
        shape = (place.max() + 1, self.length + 1)
        picked = np.zeros(shape, np.int32)
        of_low, of_high = np.zeros((2, *shape), self.weight.dtype)
        picked[place, run] = np.arange(len(run))
        of_low[place, run] = np.select([before, behind], [0, 1], 1 - self.weight)
        of_high[place, run] = np.select([before, behind], [1, 0], self.weight)
        return picked, of_low, of_high


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _interpolate_alike(x, axis, taps):
    """Its gradient sums runs of pixels: that of the picking would be a scatter, slow on every
    device and of random order on GPUs."""
    low, high = (jnp.take(x, i, axis=axis, mode="clip") for i in (taps.low, taps.high))
    return _blend(low, high, jnp.asarray(taps.weight)[None], axis)


def _interpolate_backward(axis, taps, _, gradient):
    # Output positions between the same two inputs form a run, which is summed twice, weighted for
    # either input. XLA fuses what makes the gradient into these sums, so that a loss's gradient at
    # the labels' size is never written.
    picked, of_low, of_high = taps.runs()
    runs = jnp.take(gradient, picked, axis=axis, mode="clip")
    shape = [1] * runs.ndim
    shape[axis : axis + 2] = picked.shape
    for_low, for_high = (runs * weights.reshape(shape) for weights in (of_low, of_high))
    if len(picked) > SHORT_RUN:
        zero = jnp.zeros((), runs.dtype)
        low, high = jax.lax.reduce((for_low, for_high), (zero, zero), _add_both, (axis,))
    else:
        low, high = for_low.sum(axis), for_high.sum(axis)
    after = jax.lax.slice_in_dim(low, 1, None, axis=axis)
    return (after + jax.lax.slice_in_dim(high, 0, -1, axis=axis),)


def _add_both(a, b):
    return a[0] + b[0], a[1] + b[1]


_interpolate_alike.defvjp(
    lambda x, *fixed: (_interpolate_alike(x, *fixed), None), _interpolate_backward
)


def resize(
    x: Float[Array, "b h w c"],
    shape: Sequence[int],
    *,
    align_corners: bool = False,
    in_size: Size | None = None,
    out_size: Size | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Resizes bilinearly like `torch.nn.functional.interpolate(size=shape)`: never antialiased.

    `in_size` and `out_size` are the true sizes of input and output in a padded batch; beyond
    `out_size` the result is undefined. Computes in float32 and returns x's type.
    """
    if tuple(shape) == x.shape[1:3] and in_size is None and out_size is None:
        return x
    y: Any = widen(x)
    for axis in (2, 1):
        n_in = x.shape[axis] if in_size is None else in_size[:, axis - 1]
        n_out = shape[axis - 1] if out_size is None else out_size[:, axis - 1]
        if shape[axis - 1] == x.shape[axis] and in_size is None and out_size is None:
            continue
        taps = bilinear_taps(shape[axis - 1], n_in, n_out, align_corners, y.dtype)
        y = _interpolate(y, axis, taps)
    return y.astype(x.dtype)


def pooling_weights(
    bins: int, length: int, n, dtype: Any = np.float32
) -> Float[np.ndarray | Array, "*b s n"]:
    """Returns the averaging matrix of PyTorch's adaptive pooling: (bins, length), or with n (b,)
    a traced size (b, bins, length). Bin i covers [floor(i n / bins), ceil((i + 1) n / bins)).
    """
    xp = np
    if not isinstance(n, int):
        xp = jnp
        n = n[:, None, None]
    i = np.arange(bins, dtype=np.int32)[:, None]
    start, end = (i * n) // bins, -((-(i + 1) * n) // bins)
    position = np.arange(length, dtype=np.int32)
    covered = (position >= start) & (position < end)
    return xp.asarray(covered, dtype) / xp.asarray(end - start, dtype)


def pyramid_pool(
    x: Float[Array, "b h w c"], scales: tuple[int, ...], size: Size | None = None
) -> list[Float[Array, "b s s c"]]:
    """Returns adaptive average pools of x to s x s for each scale, reading x once.

    Equals `torch.nn.AdaptiveAvgPool2d(s)` on each image's true extent. Sums in float32.
    """
    b, h, w, c = x.shape
    height, width = (h, w) if size is None else (size[:, 0], size[:, 1])
    # A matrix for each image and line, be they the same: as one for all, XLA copies the map.
    rows = jnp.concatenate([pooling_weights(s, h, height, wide_type(x)) for s in scales], axis=-2)
    rows = jnp.broadcast_to(rows, (b, *rows.shape[-2:]))
    by_row = jnp.einsum("bsh,bhn->bsn", rows, widen(x).reshape(b, h, w * c)).reshape(b, -1, w, c)
    pools, start = [], 0
    for s in scales:
        columns = jnp.asarray(pooling_weights(s, w, width, wide_type(x)))
        columns = jnp.broadcast_to(columns.reshape(-1, 1, s, w), (b, s, s, w))
        lines = by_row[:, start : start + s]
        pools.append(jnp.einsum("bstw,bswc->bstc", columns, lines).astype(x.dtype))
        start += s
    return pools


def adaptive_average_pool(
    x: Float[Array, "b h w c"], s: int, size: Size | None = None
) -> Float[Array, "b s s c"]:
    """Pools x to s x s like `torch.nn.AdaptiveAvgPool2d(s)`."""
    return pyramid_pool(x, (s,), size)[0]
