"""Bilinear resizing like PyTorch's, alone or inside a padded batch, and its gradient as sums.

Coordinates are computed in float32 because PyTorch does: more exact ones differ from it by up to
3e-4.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import widen
from fastfcn_jax.models.padding import Size


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


def _follow_sizes(x, axis: int, low, high, weight):
    """Interpolates each image along an axis by taps of its own."""
    low, high = (jnp.broadcast_to(i, (x.shape[0], i.shape[1])) for i in (low, high))
    pick = jax.vmap(lambda image, i: jnp.take(image, i, axis=axis - 1, mode="clip"))
    return _blend(pick(x, low), pick(x, high), weight, axis)


def _pick_and_blend(x, axis: int, taps: "_Taps"):
    """Interpolates all images alike."""
    low, high = (jnp.take(x, i, axis=axis, mode="clip") for i in (taps.low, taps.high))
    return _blend(low, high, jnp.asarray(taps.weight)[None], axis)


def _blend(low, high, weight, axis):
    shape = [weight.shape[0], 1, 1, 1]
    shape[axis] = weight.shape[1]
    weight = jnp.reshape(weight, shape)
    return low * (1 - weight) + high * weight


class _Taps:
    """Taps along an axis of `length`, for all images. Hashed by identity, as `custom_vjp` wants."""

    def __init__(self, low, high, weight, length):
        self.low, self.high, self.weight, self.length = low, high, weight, length

    def runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (outputs, their weights for the low input, for the high), all (longest, runs).

        Run i holds the outputs between inputs i - 1 and i, filled up with weights of 0.
        Outputs before input 0 give it their whole weight, those behind the last give it theirs.
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


_interpolate = jax.custom_vjp(_pick_and_blend, nondiff_argnums=(1, 2))


def _forward(x, axis, taps):
    return _pick_and_blend(x, axis, taps), None


def _backward(axis, taps, _, gradient):
    """Sums each run of outputs twice, weighted for the input before it and for the one behind.

    XLA fuses what makes the gradient into these sums, so that the gradient of a loss at the
    labels' size is never written; jax's own gradient would be a scatter.
    """
    picked, of_low, of_high = taps.runs()
    runs = jnp.take(gradient, picked, axis=axis, mode="clip")
    shape = [1] * runs.ndim
    shape[axis : axis + 2] = picked.shape
    weighted = tuple(runs * weights.reshape(shape) for weights in (of_low, of_high))
    zero = jnp.zeros((), runs.dtype)
    low, high = jax.lax.reduce(weighted, (zero, zero), _add_both, (axis,))
    after = jax.lax.slice_in_dim(low, 1, None, axis=axis)
    return (after + jax.lax.slice_in_dim(high, 0, -1, axis=axis),)


def _add_both(a, b):
    return a[0] + b[0], a[1] + b[1]


_interpolate.defvjp(_forward, _backward)


def resize(
    x: Float[Array, "b h w c"],
    shape: Sequence[int],
    *,
    align_corners: bool = False,
    in_size: Size | None = None,
    out_size: Size | None = None,
    interpolate: Callable = _interpolate,
) -> Float[Array, "b h2 w2 c"]:
    """Resizes bilinearly like `torch.nn.functional.interpolate(size=shape)`: never antialiased.

    `in_size` and `out_size` are the true sizes of input and output in a padded batch; beyond
    `out_size` the result is undefined. Computes in float32 and returns x's type.
    """
    y: Any = widen(x)
    alike = in_size is None and out_size is None
    for axis in (2, 1):
        if alike and shape[axis - 1] == x.shape[axis]:
            continue
        n_in = x.shape[axis] if in_size is None else in_size[:, axis - 1]
        n_out = shape[axis - 1] if out_size is None else out_size[:, axis - 1]
        taps = bilinear_taps(shape[axis - 1], n_in, n_out, align_corners, y.dtype)
        y = interpolate(y, axis, _Taps(*taps, n_in)) if alike else _follow_sizes(y, axis, *taps)
    return y.astype(x.dtype)


resize_plain = functools.partial(resize, interpolate=_pick_and_blend)  # with jax's own gradient
