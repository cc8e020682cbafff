"""Convolutions in the cheapest of their equal forms."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], stride: int = 1, dilation: int = 1
) -> Float[Array, "b h2 w2 k"]:
    """Convolves with zero padding dilation * (size - 1) / 2.

    A 1x1 is a matrix product. Where the stride divides the dilation (layer4's first 3x3, and
    1x1 shortcuts) the taps meet only every stride-th pixel: a plain convolution on those.
    """
    if kernel.shape[0] == 1 or dilation % stride == 0:
        if stride > 1:
            # Unfused: jax 0.10.2 aborts for GPUs on the strided slice in a matrix product.
            x = jax.lax.optimization_barrier(x[:, ::stride, ::stride])
        dilation, stride = max(dilation // stride, 1), 1
    if kernel.shape[0] == 1:
        return jax.lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    return convolve_direct(x, kernel, stride, dilation)


def convolve_direct(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], stride: int = 1, dilation: int = 1
) -> Float[Array, "b h2 w2 k"]:
    """The same as one general convolution."""
    padding = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolve_by_taps(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c k"], dilation: int
) -> Float[Array, "b h w k"]:
    """A dilated 3x3 as one matrix product per tap, over the pixels where the tap meets the map.

    The taps of a large dilation read mostly padding: at 64x128 a dilation of 12, 24, 36 wastes
    18, 34, 49 % of a convolution's work on zeros.
    """
    _, h, w, _ = x.shape
    y = jnp.zeros((*x.shape[:3], kernel.shape[-1]), x.dtype)
    for row in range(3):
        for column in range(3):
            down, right = (row - 1) * dilation, (column - 1) * dilation
            if abs(down) >= h or abs(right) >= w:
                continue
            read = x[:, max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)]
            product = jax.lax.dot_general(read, kernel[row, column], (((3,), (0,)), ((), ())))
            margins = ((max(-down, 0), max(down, 0)), (max(-right, 0), max(right, 0)))
            y = y + jnp.pad(product, ((0, 0), *margins, (0, 0)))
    return y
