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

MANY_CHANNELS = 64  # from here on a CPU resizes gradients line by line


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

    def matrix(self) -> np.ndarray:
        """Returns the (outputs, inputs) matrix that interpolating multiplies by."""
        matrix = np.zeros((len(self.low), self.length), self.weight.dtype)
        rows = np.arange(len(self.low))
        np.add.at(matrix, (rows, self.low), 1 - self.weight)
        np.add.at(matrix, (rows, self.high), self.weight)
        return matrix


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _interpolate_alike(x, axis, taps):
    """Its gradient is a matrix product: that of the picking would be a scatter, slow on every
    device and of random order on GPUs."""
    low, high = (jnp.take(x, i, axis=axis, mode="clip") for i in (taps.low, taps.high))
    return _blend(low, high, jnp.asarray(taps.weight)[None], axis)


def _interpolate_backward(axis, taps, _, gradient):
    by_images = functools.partial(_product_by_images, axis=axis, matrix=taps.matrix())
    if gradient.shape[-1] < MANY_CHANNELS:
        return (by_images(gradient),)
    by_lines = functools.partial(_product_by_lines, axis=axis, matrix=taps.matrix())
    return (jax.lax.platform_dependent(gradient, cpu=by_lines, default=by_images),)


def _product_by_lines(gradient, axis, matrix):
    # One product for each row or column: channels stay an axis of their own. What makes the
    # gradient is fused into this, and on a CPU takes far longer where it has to divide an index to
    # find its channel.
    lines = gradient.swapaxes(1, 2) if axis == 1 else gradient
    matrices = jnp.broadcast_to(matrix, (*lines.shape[:2], *matrix.shape))
    y = jnp.einsum("bnoi,bnoc->bnic", matrices, lines)
    return y.swapaxes(1, 2) if axis == 1 else y


def _product_by_images(gradient, axis, matrix):
    # One product for each image, over rows. As one product for all, or over columns, XLA
    # multiplies transposed views of the maps, which jax 0.10.2 fails to compile for GPUs
    # ("Couldn't find output tile sizes"); the barriers keep it from going back to those.
    if axis == 2:
        gradient = jax.lax.optimization_barrier(gradient.swapaxes(1, 2))
    b, h, w, c = gradient.shape
    matrices = jnp.broadcast_to(matrix, (b, *matrix.shape))
    y = jnp.einsum("boi,bon->bin", matrices, gradient.reshape(b, h, w * c))
    y = y.reshape(b, matrix.shape[1], w, c)
    return jax.lax.optimization_barrier(y).swapaxes(1, 2) if axis == 2 else y


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
    height, width = (x.shape[1], x.shape[2]) if size is None else (size[:, 0], size[:, 1])
    rows = [pooling_weights(s, x.shape[1], height, wide_type(x)) for s in scales]
    stacked = jnp.concatenate(rows, axis=-2)
    by_row = jnp.einsum("sh,bhwc->bswc" if size is None else "bsh,bhwc->bswc", stacked, widen(x))
    pools, start = [], 0
    for s in scales:
        columns = pooling_weights(s, x.shape[2], width, wide_type(x))
        pool = jnp.einsum(
            "tw,bswc->bstc" if size is None else "btw,bswc->bstc",
            jnp.asarray(columns),
            by_row[:, start : start + s],
        )
        pools.append(pool.astype(x.dtype))
        start += s
    return pools


def adaptive_average_pool(
    x: Float[Array, "b h w c"], s: int, size: Size | None = None
) -> Float[Array, "b s s c"]:
    """Pools x to s x s like `torch.nn.AdaptiveAvgPool2d(s)`."""
    return pyramid_pool(x, (s,), size)[0]
