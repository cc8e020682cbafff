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


def input_gradient_apart(
    gradient: Float[Array, "b h w c"], kernel: Float[Array, "3 3 1 c"], dilation: int
) -> Float[Array, "b h w c"]:
    """The same in a kernel of its own.

    Without the barrier XLA for GPUs makes one kernel of the four branches of a JPU and of the sum
    of their gradients, which has too few registers: each thread spills 8 kB.
    """
    return jax.lax.optimization_barrier(input_gradient(gradient, kernel, dilation))


def kernel_gradient_by_blocks(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w c"], size: int, dilation: int
) -> Float[Array, "3 3 1 c"]:
    """The gradient of the kernel, in the `wide_type`.

    Sixteen blocks of rows, or as many as there are images, are added to one another where their
    products are made, and a matrix product sums what remains. The gradient is shifted and not x,
    whose padded map XLA would keep from the forward pass; the gradient's is read for x's as well.
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


def kernel_gradient_by_rows(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w c"], size: int, dilation: int
) -> Float[Array, "3 3 1 c"]:
    """The same with all nine sums in one reduction, over at most 31 rows at a time.

    XLA makes one loop of that, which reads both maps once and keeps the sums in registers; nine
    sums of their own would read the maps again for every second tap, or write the products out.
    """
    _, h, _, c = x.shape
    blocks = -(-h // 31)
    rows = -(-h // blocks)
    below = ((0, 0), (0, blocks * rows - h), (0, 0), (0, 0))
    wide = jnp.pad(gradient, below).astype(wide_type(x))
    products = []
    for shifted in _shifts(jnp.pad(x, below), dilation):
        product = shifted.astype(wide.dtype) * wide
        parts = (product[:, i * rows : (i + 1) * rows] for i in range(blocks))
        products.append(functools.reduce(jnp.add, parts))
    zeros = [jnp.zeros((), wide.dtype)] * 9
    sums = jax.lax.reduce(
        tuple(products), tuple(zeros), lambda a, b: tuple(map(jnp.add, a, b)), (1,)
    )
    lines = jnp.concatenate([x.reshape(-1, c) for x in sums], axis=-1)
    return lines.sum(0).reshape(size, size, 1, c)


def _shifts(x, dilation) -> Iterator[Array]:
    """Yields what each of the nine taps reads at every pixel, row by row."""
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    for top in range(0, 3 * dilation, dilation):
        for left in range(0, 3 * dilation, dilation):
            yield padded[:, top : top + h, left : left + w]
