"""Convolutions in the cheapest of their equal forms.

GPUs take one general convolution and XLA's gradients of it, but for dilated ones (`form_on_gpu`).
On a CPU these gradients take up to six times as long as matrix products, and most of a 3x3's
arithmetic can be saved (`form_on_cpu`). docs/performance.md has the figures that decided.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops import bands, phases, taps, winograd

# Multiply-accumulates of an image from which a GPU may gain by a convolution in parts: 0.05 ms of
# an H200, so that each part fills the device and its launch is a small part of it.
WORTH_PARTING = 20_000_000_000


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
        default=lambda x, kernel: form_on_gpu(x, kernel, dilation).convolve(x, kernel),
    )


def _forward(x, kernel, dilation):
    return _convolve_at_stride_1(x, kernel, dilation), (x, kernel)


def _backward(dilation, saved, gradient):
    def on_cpu(x, kernel, gradient):
        form = form_on_cpu(x, kernel, dilation)
        of_kernel = form.kernel_gradient(x, gradient).astype(kernel.dtype)
        return form.input_gradient(gradient, kernel), of_kernel

    def on_gpu(x, kernel, gradient):
        form = form_on_gpu(x, kernel, dilation)
        of_kernel = form.kernel_gradient(x, gradient).astype(kernel.dtype)
        # The kernel's first: XLA leaves what only the update waits for to the end, and keeps both
        # maps until then. Flat, or the update takes it in cuDNN's order, and not in place.
        of_kernel, gradient = jax.lax.optimization_barrier((of_kernel.ravel(), gradient))
        return form.input_gradient(gradient, kernel), of_kernel.reshape(kernel.shape)

    return jax.lax.platform_dependent(*saved, gradient, cpu=on_cpu, default=on_gpu)


_convolve_at_stride_1.defvjp(_forward, _backward)


class Form(NamedTuple):
    """A way to compute a convolution at stride 1, of a given size and dilation."""

    convolve: Callable  # (x, kernel) -> y
    input_gradient: Callable  # (gradient of y, kernel) -> gradient of x
    kernel_gradient: Callable  # (x, gradient of y) -> gradient of the kernel, in any type


def form_on_cpu(x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], dilation: int) -> Form:
    """Returns the fastest form of a 1x1 or 3x3 on a CPU, as measured.

    By taps where at least 15 % of the work would be on the zeros around the map; by Winograd's
    tiles where there are channels and pixels enough to pay for the turning.
    """
    (b, h, w, c), (size, _, _, k) = x.shape, kernel.shape
    met = max(3 * h - 2 * dilation, h) * max(3 * w - 2 * dilation, w) / (9 * h * w)
    if size == 1 or met < 0.85:
        by_taps = functools.partial(taps.kernel_gradient, size=size)
        return _dilated(dilation, taps.convolve, taps.input_gradient, by_taps)
    precise = jnp.finfo(x.dtype).bits >= 32
    if dilation == 1 and precise and min(c, k) >= 128 and b * h * w >= 256:
        return Form(winograd.convolve, winograd.input_gradient, winograd.kernel_gradient)
    return _dilated(dilation, convolve_direct, _input_gradient_direct, bands.kernel_gradient)


def form_on_gpu(x: Float[Array, "b h w c"], kernel: Float[Array, "p q c k"], dilation: int) -> Form:
    """Returns the form of a 1x1 or 3x3 with the lowest floor in XLA's program for a GPU.

    By bands where at least a tenth of much work would be on the rows of zeros above and below the
    map; other dilated kernels have their gradient by phases.
    """
    (_, h, w, c), (size, _, _, k) = x.shape, kernel.shape
    if size == 1 or dilation == 1:
        return _with_gradients_of_jax(_product if size == 1 else convolve_direct, x, kernel)
    met = max(3 * h - 2 * dilation, h) / (3 * h)
    if met <= 0.9 and 9 * h * w * c * k >= WORTH_PARTING:
        return _dilated(dilation, bands.convolve, bands.input_gradient, bands.kernel_gradient)
    return _dilated(dilation, convolve_direct, _input_gradient_direct, phases.kernel_gradient)


def _with_gradients_of_jax(convolve, x, kernel) -> Form:
    def input_gradient(gradient, kernel):
        return jax.linear_transpose(lambda x: convolve(x, kernel), x)(gradient)[0]

    def kernel_gradient(x, gradient):
        return jax.linear_transpose(lambda kernel: convolve(x, kernel), kernel)(gradient)[0]

    return Form(convolve, input_gradient, kernel_gradient)


def _dilated(dilation: int, *functions: Callable) -> Form:
    return Form(*(functools.partial(function, dilation=dilation) for function in functions))


def _input_gradient_direct(gradient, kernel, dilation):
    return convolve_direct(gradient, taps.turned(kernel), dilation=dilation)


def _product(x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c k"]):
    """A 1x1 as a product that XLA fuses with what is around it."""
    return taps.product(x, kernel[0, 0], 3, 0, x.dtype)
