"""Convolutions in the cheapest of their equal forms.

GPUs take one general convolution, and XLA's gradients of it. On a CPU these gradients take up to
six times as long as matrix products, and most of a 3x3's arithmetic can be saved: `form_on_cpu`
says which form is the fastest where (docs/performance.md).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops import taps, winograd
from fastfcn_jax.models.ops.precision import wide_type


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
        cpu=lambda x, kernel: form_on_cpu(x, kernel, dilation).convolve(x, kernel),
        default=functools.partial(_convolve_elsewhere, dilation=dilation),
    )


def _forward(x, kernel, dilation):
    return _convolve_at_stride_1(x, kernel, dilation), (x, kernel)


def _backward(dilation, saved, gradient):
    def on_cpu(x, kernel, gradient):
        form = form_on_cpu(x, kernel, dilation)
        of_kernel = form.kernel_gradient(x, gradient).astype(kernel.dtype)
        return form.input_gradient(gradient, kernel), of_kernel

    def elsewhere(x, kernel, gradient):
        form = functools.partial(_convolve_elsewhere, dilation=dilation)
        return jax.vjp(form, x, kernel)[1](gradient)

    return jax.lax.platform_dependent(*saved, gradient, cpu=on_cpu, default=elsewhere)


_convolve_at_stride_1.defvjp(_forward, _backward)


def _convolve_elsewhere(x, kernel, dilation):
    if kernel.shape[0] == 1:
        return taps.product(x, kernel[0, 0], 3, 0, x.dtype)
    return convolve_direct(x, kernel, dilation=dilation)


class Form(NamedTuple):
    """A way to compute a convolution at stride 1, of a given size and dilation."""

    convolve: Callable  # (x, kernel) -> y
    input_gradient: Callable  # (gradient of y, kernel) -> gradient of x
    kernel_gradient: Callable  # (x, gradient of y) -> gradient of the kernel, in the `wide_type`


def form_on_cpu(x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], dilation: int) -> Form:
    """Returns the fastest form of a 1x1 or 3x3 on a CPU, as measured.

    By taps where at least 15 % of the work would be on the zeros around the map; by Winograd's
    tiles where there are channels and pixels enough to pay for the turning.
    """
    (b, h, w, c), (size, _, _, k) = x.shape, kernel.shape
    met = max(3 * h - 2 * dilation, h) * max(3 * w - 2 * dilation, w) / (9 * h * w)
    if size == 1 or met < 0.85:
        return Form(
            functools.partial(taps.convolve, dilation=dilation),
            functools.partial(taps.input_gradient, dilation=dilation),
            functools.partial(taps.kernel_gradient, size=size, dilation=dilation),
        )
    precise = jnp.finfo(x.dtype).bits >= 32
    if dilation == 1 and precise and min(c, k) >= 128 and b * h * w >= 256:
        return Form(winograd.convolve, winograd.input_gradient, winograd.kernel_gradient)
    return Form(
        functools.partial(convolve_direct, dilation=dilation),
        lambda gradient, kernel: convolve_direct(gradient, _turned(kernel), dilation=dilation),
        functools.partial(_kernel_gradient_by_rows, dilation=dilation),
    )


def _kernel_gradient_by_rows(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], dilation: int
) -> Float[Array, "3 3 c k"]:
    """One matrix product per row of taps, with the narrower side's columns shifted side by side."""
    _, h, w, c = x.shape
    k = gradient.shape[-1]
    if c < k:
        return _turned(_kernel_gradient_by_rows(gradient, x, dilation))
    padded = jnp.pad(gradient, ((0, 0), (0, 0), (dilation, dilation), (0, 0)))
    # Materialised: fused into the products' operands each column would be padded again.
    columns = jax.lax.optimization_barrier(
        jnp.concatenate([padded[:, :, i * dilation : i * dilation + w] for i in (2, 1, 0)], -1)
    )
    rows = []
    for down in (-dilation, 0, dilation):
        pixels = x[taps.shifted(h, w, down, 0)].reshape(-1, c)
        of_pixels = columns[taps.shifted(h, w, -down, 0)].reshape(-1, 3 * k)
        rows.append(taps.product(pixels, of_pixels, 0, 0, wide_type(x)).reshape(c, 3, k))
    return jnp.stack(rows).swapaxes(1, 2)


def _turned(kernel: Float[Array, "p q c k"]) -> Float[Array, "p q k c"]:
    """The kernel of the transposed convolution."""
    return kernel[::-1, ::-1].swapaxes(2, 3)
