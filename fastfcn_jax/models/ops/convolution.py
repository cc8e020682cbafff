"""Convolutions in the cheapest of their equal forms.

A 3x3 at stride 1 has two: one general convolution, and matrix products over the pixels where each
tap meets the map. GPUs take the general one, gradients included. On a CPU, XLA's is slow where
dilated, and its gradients take up to six times as long as by products (docs/performance.md): the
forms are chosen pass by pass.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import wide_type

Pixels = tuple[slice, slice, slice]


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
    if kernel.shape[0] in (1, 3) and stride == 1:
        return _convolve_at_stride_1(x, kernel, dilation)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_at_stride_1(x, kernel, dilation):
    # The program's platform decides, not this machine's: programs are compiled for others too.
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(convolve_on_cpu, dilation=dilation),
        default=functools.partial(_convolve_elsewhere, dilation=dilation),
    )


def _forward(x, kernel, dilation):
    return _convolve_at_stride_1(x, kernel, dilation), (x, kernel)


def _backward(dilation, saved, gradient):
    def on_cpu(x, kernel, gradient):
        return (
            input_gradient_on_cpu(gradient, kernel, dilation),
            kernel_gradient_on_cpu(x, gradient, kernel.shape[0], dilation).astype(kernel.dtype),
        )

    def elsewhere(x, kernel, gradient):
        form = functools.partial(_convolve_elsewhere, dilation=dilation)
        return jax.vjp(form, x, kernel)[1](gradient)

    return jax.lax.platform_dependent(*saved, gradient, cpu=on_cpu, default=elsewhere)


_convolve_at_stride_1.defvjp(_forward, _backward)


def _convolve_elsewhere(x, kernel, dilation):
    if kernel.shape[0] == 1:
        return _product(x, kernel[0, 0], 3, 0, x.dtype)
    return convolve_direct(x, kernel, dilation=dilation)


def convolve_on_cpu(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], dilation: int
) -> Float[Array, "b h w k"]:
    """By taps where at least 15 % of the work would be on the zeros around the map.

    Otherwise as the sum over slices of 512 input channels, faster than one convolution of 2048
    (docs/performance.md).
    """
    if kernel.shape[0] == 1 or _is_mostly_padding(x, dilation):
        return convolve_by_taps(x, kernel, dilation)
    starts = list(range(512, x.shape[-1], 512))
    slices = zip(jnp.split(x, starts, 3), jnp.split(kernel, starts, 2), strict=True)
    return functools.reduce(jnp.add, (convolve_direct(*each, dilation=dilation) for each in slices))


def input_gradient_on_cpu(
    gradient: Float[Array, "b h w k"], kernel: Float[Array, "p q c k"], dilation: int
) -> Float[Array, "b h w c"]:
    """The gradient of a convolution's input.

    By taps also from 1024 channels on, where turning the kernel round costs more than it gains.
    """
    if kernel.shape[0] == 1 or kernel.shape[2] >= 1024 or _is_mostly_padding(gradient, dilation):
        return _sum_of_taps(gradient, kernel, dilation, backwards=True)
    return convolve_on_cpu(gradient, _turned(kernel), dilation)


def kernel_gradient_on_cpu(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int, dilation: int
) -> Float[Array, "p q c k"]:
    """The gradient of a convolution's kernel, size x size, in the `wide_type`.

    One matrix product per row of taps, with the narrower side's columns shifted side by side; by
    taps where these would be mostly padding.
    """
    c, k = x.shape[-1], gradient.shape[-1]
    if size == 1:
        # Flat: left to autodiff, XLA transposes the gradient, at twice the product's own time.
        return _product(x.reshape(-1, c), gradient.reshape(-1, k), 0, 0, wide_type(x))[None, None]
    if _is_mostly_padding(x, dilation):
        return kernel_gradient_by_taps(x, gradient, dilation)
    if c < k:
        return _turned(kernel_gradient_on_cpu(gradient, x, size, dilation))
    _, h, w, _ = x.shape
    padded = jnp.pad(gradient, ((0, 0), (0, 0), (dilation, dilation), (0, 0)))
    # Materialised: fused into the products' operands each column would be padded again.
    columns = jax.lax.optimization_barrier(
        jnp.concatenate([padded[:, :, i * dilation : i * dilation + w] for i in (2, 1, 0)], -1)
    )
    rows = []
    for down in (-dilation, 0, dilation):
        pixels = x[_shifted(h, w, down, 0)].reshape(-1, c)
        of_pixels = columns[_shifted(h, w, -down, 0)].reshape(-1, 3 * k)
        rows.append(_product(pixels, of_pixels, 0, 0, wide_type(x)).reshape(c, 3, k))
    return jnp.stack(rows).swapaxes(1, 2)


def convolve_by_taps(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], dilation: int
) -> Float[Array, "b h w k"]:
    """A convolution as one matrix product per tap, over the pixels where the tap meets the map.

    The taps of a large dilation read mostly padding: at 64x128 a dilation of 12, 24, 36 wastes
    18, 34, 49 % of a convolution's work on zeros.
    """
    return _sum_of_taps(x, kernel, dilation, backwards=False)


def kernel_gradient_by_taps(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], dilation: int
) -> Float[Array, "3 3 c k"]:
    """The gradient of a 3x3's kernel, as one matrix product per tap, in the `wide_type`."""
    _, h, w, c = x.shape
    k = gradient.shape[-1]
    taps = [[jnp.zeros((c, k), wide_type(x))] * 3 for _ in range(3)]
    for row, column, read, written in _taps(h, w, 3, dilation):
        # Flat first: XLA's CPU products that sum over several axes are slower by half.
        pixels, of_pixels = x[read].reshape(-1, c), gradient[written].reshape(-1, k)
        taps[row][column] = _product(pixels, of_pixels, 0, 0, wide_type(x))
    return jnp.stack([jnp.stack(row) for row in taps])


def _is_mostly_padding(x, dilation: int) -> bool:
    """Whether 15 % of a dilated 3x3's products over x or more would be with the zeros around it."""
    _, h, w, _ = x.shape
    met = max(3 * h - 2 * dilation, h) * max(3 * w - 2 * dilation, w)
    return met < 0.85 * 9 * h * w


def _turned(kernel: Float[Array, "p q c k"]) -> Float[Array, "p q k c"]:
    """The kernel of the transposed convolution."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _sum_of_taps(x, kernel, dilation, backwards):
    """The convolution of x or, `backwards`, its transpose, as a sum of matrix products."""
    _, h, w, _ = x.shape
    products = []
    for row, column, read, written in _taps(h, w, kernel.shape[0], dilation):
        if backwards:
            read, written = written, read
        product = _product(x[read], kernel[row, column], 3, int(backwards), wide_type(x))
        (top, bottom), (left, right) = (
            (part.start, length - part.stop)
            for part, length in zip(written[1:], (h, w), strict=True)
        )
        products.append(jnp.pad(product, ((0, 0), (top, bottom), (left, right), (0, 0))))
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _taps(h: int, w: int, size: int, dilation: int) -> Iterator[tuple[int, int, Pixels, Pixels]]:
    """Yields (row, column, pixels it reads, pixels it writes) of each tap that meets the map."""
    for row in range(size):
        for column in range(size):
            down, right = (row - size // 2) * dilation, (column - size // 2) * dilation
            if abs(down) < h and abs(right) < w:
                yield row, column, _shifted(h, w, down, right), _shifted(h, w, -down, -right)


def _shifted(h: int, w: int, down: int, right: int) -> Pixels:
    """The pixels that a shift of the map by (down, right) leaves inside, before shifting back."""
    rows = slice(max(down, 0), h + min(down, 0))
    return slice(None), rows, slice(max(right, 0), w + min(right, 0))


def _product(a, b, axis_a: int, axis_b: int, dtype):
    return jax.lax.dot_general(
        a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=dtype
    )
