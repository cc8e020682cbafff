"""Depthwise dilated 3x3 convolution as nine shifted multiply-adds, and its gradients.

XLA's grouped convolution does the same 15 to 34 times slower on a CPU, and jax's gradient of the
shifts is a chain of pads and slices; here each gradient is written as the same kind of fusion:
the input's with the kernel flipped, the kernel's as nine sums of products.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import wide_type


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 1 c"], dilation: int
) -> Float[Array, "b h w c"]:
    """Convolves each channel with its own 3x3 kernel, zero padding `dilation`."""
    y = jnp.zeros_like(x)
    for tap, shifted in zip(kernel.reshape(9, -1), _shifts(x, dilation), strict=True):
        y = y + shifted * tap
    return y


def input_gradient(
    gradient: Float[Array, "b h w c"], kernel: Float[Array, "3 3 1 c"], dilation: int
) -> Float[Array, "b h w c"]:
    """The gradient of the input."""
    return convolve(gradient, kernel[::-1, ::-1], dilation)


def kernel_gradient_by_blocks(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w c"], size: int, dilation: int
) -> Float[Array, "3 3 1 c"]:
    """The gradient of the kernel, in the `wide_type`.

    Sixteen blocks of rows, or as many as there are images, are added to one another where their
    products are made, and a matrix product sums what remains. The gradient is shifted and not x,
    whose padded map XLA would keep from the forward pass; the gradient's is needed anyway.
    """
    b, h, w, c = x.shape
    rows = next(n for n in range(min(-(-b * h // 16), h), h + 1) if h % n == 0)
    blocks = [(i, slice(top, top + rows)) for i in range(b) for top in range(0, h, rows)]
    wide = x.astype(wide_type(x))
    weights = jnp.ones(rows * w, wide.dtype)
    sums = []
    for shifted in _shifts(gradient, dilation):
        products = (shifted[block].astype(wide.dtype) * wide[block] for block in blocks)
        sums.append(weights @ functools.reduce(jnp.add, products).reshape(-1, c))
    return jnp.stack(sums[::-1]).reshape(size, size, 1, c)


def convolve_padded(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 1 c"], dilation: int
) -> Float[Array, "b h w c"]:
    """As `convolve`, of a padded map that is written down.

    Otherwise kernels for GPUs ask at every tap whether it is inside the map, which takes more than
    twice the instructions.
    """
    margin = _margin(dilation)
    return _convolve_windows(_padded(x, margin), kernel, x.shape, margin, dilation)


def pad_gradient(gradient: Float[Array, "b h w c"], dilation: int) -> Float[Array, "b h2 w2 c"]:
    """The gradient as the two functions below take it: written down with its padding."""
    return _pad(gradient, dilation, dilation)


def input_gradient_padded(
    padded: Float[Array, "b h2 w2 c"], kernel: Float[Array, "3 3 1 c"], dilation: int
) -> Float[Array, "b h w c"]:
    """The gradient of the input."""
    b, h, w, c = padded.shape
    shape = (b, h - 2 * dilation, w - 2 * dilation, c)
    return _convolve_windows(padded, kernel[::-1, ::-1], shape, dilation, dilation)


def kernel_gradient_padded(
    x: Float[Array, "b h w c"], padded: Float[Array, "b h2 w2 c"], size: int, dilation: int
) -> Float[Array, "3 3 1 c"]:
    """The gradient of the kernel, all nine sums in one reduction over at most 31 rows at a time.

    XLA makes one loop of that, which reads both maps once and keeps the sums in registers; nine
    sums of their own would read the maps again for every second tap, or write the products out.
    """
    _, h, w, c = x.shape
    rows = _rows(h)
    gradient = padded[:, dilation : dilation + h, dilation : dilation + w]
    wide = jnp.pad(gradient, ((0, 0), (0, -h % rows), (0, 0), (0, 0))).astype(wide_type(x))
    margin = _margin(dilation)
    products = []
    for window in _windows(_padded(x, margin), wide.shape, margin, dilation):
        product = window.astype(wide.dtype) * wide
        parts = (product[:, i : i + rows] for i in range(0, h, rows))
        products.append(functools.reduce(jnp.add, parts))
    zeros = [jnp.zeros((), wide.dtype)] * 9
    sums = jax.lax.reduce(
        tuple(products), tuple(zeros), lambda a, b: tuple(map(jnp.add, a, b)), (1,)
    )
    lines = jnp.concatenate([x.reshape(-1, c) for x in sums], axis=-1)
    return lines.sum(0).reshape(size, size, 1, c)


def _rows(h: int) -> int:
    """Rows of a block of `kernel_gradient_padded`: if possible a divisor of h from 16 to 31."""
    return next((n for n in range(min(h, 31), 15, -1) if h % n == 0), -(-h // -(-h // 31)))


def _margin(dilation: int) -> int:
    # One for all of the JPU's dilations, so that XLA makes one padded map for its four branches.
    return max(dilation, 8)


def _padded(x, margin) -> Array:
    """The map with a margin on every side and, below, what fills up its last block of rows."""
    return _pad(x, margin, margin + -x.shape[1] % _rows(x.shape[1]))


def _pad(x, margin, below) -> Array:
    return jax.lax.optimization_barrier(
        jnp.pad(x, ((0, 0), (margin, below), (margin, margin), (0, 0)))
    )


def _convolve_windows(padded, kernel, shape, margin, dilation) -> Array:
    y = jnp.zeros(shape, padded.dtype)
    windows = _windows(padded, shape, margin, dilation)
    for tap, window in zip(kernel.reshape(9, -1), windows, strict=True):
        y = y + window * tap
    return y


def _windows(padded, shape, margin, dilation) -> Iterator[Array]:
    """Yields what each of the nine taps reads at every pixel of `shape`, row by row."""
    _, h, w, _ = shape
    for top in range(margin - dilation, margin + dilation + 1, dilation):
        for left in range(margin - dilation, margin + dilation + 1, dilation):
            yield padded[:, top : top + h, left : left + w]


def _shifts(x, dilation) -> Iterator[Array]:
    """Yields what each of the nine taps reads at every pixel, row by row."""
    padded = jnp.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    return _windows(padded, x.shape, dilation, dilation)
