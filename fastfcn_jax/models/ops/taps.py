"""A convolution as one matrix product per tap, over the pixels where the tap meets the map.

The taps of a large dilation read mostly padding: at 64x128 a dilation of 12, 24, 36 wastes 18, 34,
49 % of a convolution's work on zeros. A 1x1 is the case of a single tap.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import wide_type

Pixels = tuple[slice, slice, slice]


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], dilation: int = 1
) -> Float[Array, "b h w k"]:
    """Convolves at stride 1 with zero padding dilation * (size - 1) / 2."""
    return _sum_of_products(x, kernel, dilation, backwards=False)


def input_gradient(
    gradient: Float[Array, "b h w k"], kernel: Float[Array, "p q c k"], dilation: int = 1
) -> Float[Array, "b h w c"]:
    """The gradient of the input."""
    return _sum_of_products(gradient, kernel, dilation, backwards=True)


def kernel_gradient(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int, dilation: int = 1
) -> Float[Array, "p q c k"]:
    """The gradient of a kernel, size x size, in the `wide_type`."""
    _, h, w, c = x.shape
    k = gradient.shape[-1]
    taps = [[jnp.zeros((c, k), wide_type(x))] * size for _ in range(size)]
    for row, column, read, written in _taps(h, w, size, dilation):
        # Flat first: XLA's CPU products that sum over several axes are slower by half, and left
        # to autodiff it transposes the gradient, at twice the product's own time.
        pixels, of_pixels = x[read].reshape(-1, c), gradient[written].reshape(-1, k)
        taps[row][column] = product(pixels, of_pixels, 0, 0, wide_type(x))
    return jnp.stack([jnp.stack(row) for row in taps])


def shifted(h: int, w: int, down: int, right: int) -> Pixels:
    """Returns the pixels that a shift by (down, right) leaves in the map, as before the shift back.

    Their values belong to the pixels `shifted(h, w, -down, -right)`.
    """
    rows = slice(max(down, 0), h + min(down, 0))
    return slice(None), rows, slice(max(right, 0), w + min(right, 0))


def product(a, b, axis_a: int, axis_b: int, dtype):
    """The matrix product over one axis of either, in the given type."""
    return jax.lax.dot_general(
        a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=dtype
    )


def turned(kernel: Float[Array, "p q c k"]) -> Float[Array, "p q k c"]:
    """The kernel of the transposed convolution."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _sum_of_products(x, kernel, dilation, backwards):
    """The convolution of x or, `backwards`, its transpose."""
    one = functools.partial(_of_images, kernel=kernel, dilation=dilation, backwards=backwards)
    images = x.shape[0]  # an exported program has any number of images
    if len(kernel) == 1 or not isinstance(images, int) or images == 1:
        return one(x)
    # Image by image, in a loop. Otherwise XLA computes the products of all taps, also those of
    # several convolutions whose sum is wanted, before it adds any, and keeps what the forward pass
    # has cut out of x for the kernel's gradient.
    return jax.lax.map(lambda image: one(image[None])[0], x)


def _of_images(x, kernel, dilation, backwards):
    _, h, w, _ = x.shape
    products = []
    for row, column, read, written in _taps(h, w, kernel.shape[0], dilation):
        if backwards:
            read, written = written, read
        y = product(x[read], kernel[row, column], 3, int(backwards), wide_type(x))
        (top, bottom), (left, right) = (
            (part.start, length - part.stop)
            for part, length in zip(written[1:], (h, w), strict=True)
        )
        products.append(jnp.pad(y, ((0, 0), (top, bottom), (left, right), (0, 0))))
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _taps(h: int, w: int, size: int, dilation: int) -> Iterator[tuple[int, int, Pixels, Pixels]]:
    """Yields (row, column, pixels it reads, pixels it writes) of each tap that meets the map."""
    for row in range(size):
        for column in range(size):
            down, right = (row - size // 2) * dilation, (column - size // 2) * dilation
            if abs(down) < h and abs(right) < w:
                yield row, column, shifted(h, w, down, right), shifted(h, w, -down, -right)
