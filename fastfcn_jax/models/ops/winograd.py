"""A plain 3x3 convolution with four ninths of the multiplications: Winograd's F(2x2, 3x3).

The map is cut into tiles of 2x2 pixels. A tile's 4x4 neighbourhood and the kernel are each turned
into 16 sums (`_of_input`, `_of_kernel`), multiplied channel by channel, 16 products where the
nine taps of four pixels make 36, and turned back (`_to_output`). Only additions and halvings are
new, so that float32 loses a bit or two at most; 16-bit types would lose too much.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv
1509.09308), section 4.1; the gradients are the transposes of the same three maps.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.taps import product

Square = list[list[Array]]


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c k"], dilation: int = 1
) -> Float[Array, "b h w k"]:
    """Convolves with zero padding 1; here and below `dilation` has to be 1."""
    return _convolve(x, [[kernel[i, j] for j in range(3)] for i in range(3)], 0)


def input_gradient(
    gradient: Float[Array, "b h w k"], kernel: Float[Array, "3 3 c k"], dilation: int = 1
) -> Float[Array, "b h w c"]:
    """The gradient of the input: a convolution with the kernel turned round."""
    return _convolve(gradient, [[kernel[i, j] for j in (2, 1, 0)] for i in (2, 1, 0)], 1)


def kernel_gradient(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int = 3, dilation: int = 1
) -> Float[Array, "3 3 c k"]:
    """The gradient of the kernel; `size` has to be 3.

    The neighbourhoods are those of the gradient and the tiles those of x: the other way round
    gives the same sums, but XLA would keep the forward pass's 16 maps of x until they are used.
    """
    inputs = _on_both_axes(_of_output, _tiles(x))
    outputs = _on_both_axes(_of_input, _neighbourhoods(gradient))
    products = [
        [
            product(v.reshape(-1, v.shape[-1]), w.reshape(-1, w.shape[-1]), 0, 0, x.dtype)
            for v, w in pair
        ]
        for pair in map(zip, inputs, outputs)
    ]
    rows = _on_both_axes(_to_kernel, products)
    return jnp.stack([jnp.stack(row[::-1]) for row in reversed(rows)])


def _convolve(x, taps, axis):
    b, h, w, _ = x.shape
    inputs = _on_both_axes(_of_input, _neighbourhoods(x))
    kernels = _on_both_axes(_of_kernel, taps)
    products = [
        [product(v, u, 3, axis, x.dtype) for v, u in pair] for pair in map(zip, inputs, kernels)
    ]
    y = jnp.stack([jnp.stack(row, 3) for row in _on_both_axes(_to_output, products)], 2)
    return y.reshape(b, h + h % 2, w + w % 2, -1)[:, :h, :w]


def _on_both_axes(transform: Callable[[Sequence[Array]], list[Array]], square: Square) -> Square:
    """Applies a transform of a column of arrays to the columns, then to the rows."""
    columns = [transform(column) for column in zip(*square, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _neighbourhoods(x: Float[Array, "b h w c"]) -> Square:
    """Returns [row][column] of the 4x4 pixels around each tile: (b, h / 2, w / 2, c) each."""
    _, h, w, _ = x.shape
    rows, columns = h + h % 2, w + w % 2
    padded = jnp.pad(x, ((0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))
    return [[padded[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)]


def _tiles(x: Float[Array, "b h w c"]) -> Square:
    """Returns [row][column] of the 2x2 pixels of each tile: (b, h / 2, w / 2, c) each."""
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    return [[padded[:, i::2, j::2] for j in range(2)] for i in range(2)]


def _of_input(d):
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_kernel(g):
    return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]


def _to_output(m):
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _of_output(y):  # the transpose of _to_output
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _to_kernel(u):  # the transpose of _of_kernel
    return [u[0] + (u[1] + u[2]) / 2, (u[1] - u[2]) / 2, (u[1] + u[2]) / 2 + u[3]]
