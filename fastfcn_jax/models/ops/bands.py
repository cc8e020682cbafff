"""A dilated 3x3 convolution by bands of rows, each with the rows of taps that meet the map there.

Near its upper edge a map lacks the upper taps, near its lower edge the lower ones: at 64 rows a
dilation of 12, 24, 36 wastes 12, 25, 37 % of a convolution's work on them. A row of pixels is
computed once, with all of its taps, so that sums stay inside the convolution; columns in bands
too would save half as much again, for copies and small convolutions that cost more.
"""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import wide_type
from fastfcn_jax.models.ops.taps import product, shifted, turned


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c k"], dilation: int
) -> Float[Array, "b h w k"]:
    """Convolves at stride 1 with zero padding `dilation`."""
    bands = [
        jax.lax.conv_general_dilated(
            x[:, pixels],
            kernel[taps],
            window_strides=(1, 1),
            padding=((0, 0), (dilation, dilation)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for pixels, taps in _bands(x.shape[1], dilation)
    ]
    return jnp.concatenate(bands, axis=1)


def input_gradient(
    gradient: Float[Array, "b h w k"], kernel: Float[Array, "3 3 c k"], dilation: int
) -> Float[Array, "b h w c"]:
    """The gradient of the input."""
    return convolve(gradient, turned(kernel), dilation)


def kernel_gradient(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int, dilation: int
) -> Float[Array, "3 3 c k"]:
    """The gradient of the kernel, in the `wide_type`.

    One matrix product per row of taps, with the narrower side's columns shifted side by side.
    """
    _, h, w, c = x.shape
    k = gradient.shape[-1]
    if c < k:
        return turned(kernel_gradient(gradient, x, size, dilation))
    padded = jnp.pad(gradient, ((0, 0), (0, 0), (dilation, dilation), (0, 0)))
    # Materialised: fused into the products' operands each column would be padded again.
    columns = jax.lax.optimization_barrier(
        jnp.concatenate([padded[:, :, i * dilation : i * dilation + w] for i in (2, 1, 0)], -1)
    )
    rows = [jnp.zeros((c, 3, k), wide_type(x))] * 3
    for row, down in enumerate((-dilation, 0, dilation)):
        if abs(down) < h:
            pixels = x[shifted(h, w, down, 0)].reshape(-1, c)
            of_pixels = columns[shifted(h, w, -down, 0)].reshape(-1, 3 * k)
            rows[row] = product(pixels, of_pixels, 0, 0, wide_type(x)).reshape(c, 3, k)
    return jnp.stack(rows).swapaxes(1, 2)


def _bands(height: int, dilation: int) -> Iterator[tuple[slice, slice]]:
    """Yields (rows of pixels it reads, rows of taps) of each band of the result, downwards."""
    cuts = sorted({0, min(dilation, height), max(height - dilation, 0), height})
    for start, stop in itertools.pairwise(cuts):
        first = 1 if start < dilation else 0
        last = 1 if stop + dilation > height else 2
        pixels = slice(start + (first - 1) * dilation, stop + (last - 1) * dilation)
        yield pixels, slice(first, last + 1)
