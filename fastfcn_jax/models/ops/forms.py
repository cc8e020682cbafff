"""The one table: each operation that has more than one form, by platform, and what decided.

A form computes the same function as the plain one, up to rounding, with less work or memory. The
figures are those of `benchmarks/ablate.py` (docs/background/forms.md).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops import (
    bands,
    batch_norm,
    bilinear,
    convolution,
    depthwise,
    grouped,
    max_pool,
    phases,
    pyramid_conv,
    taps,
    winograd,
)


class Convolution(NamedTuple):
    """A convolution at stride 1 and its gradients."""

    convolve: Callable  # (x, kernel, dilation) -> y
    input_gradient: Callable  # (gradient of y, kernel, dilation) -> gradient of x
    kernel_gradient: Callable  # (x, gradient of y, size, dilation) -> the kernel's, in any type
    # (gradient of y, dilation) -> that gradient as the two others take it
    prepare: Callable = lambda gradient, dilation: gradient


DIRECT, TAPS, WINOGRAD, BANDS = (
    Convolution(form.convolve, form.input_gradient, form.kernel_gradient)
    for form in (convolution, taps, winograd, bands)
)
PHASES = DIRECT._replace(kernel_gradient=phases.kernel_gradient)
SHIFTS = Convolution(
    depthwise.convolve, depthwise.input_gradient, depthwise.kernel_gradient_by_blocks
)
SHIFTS_PADDED = Convolution(
    depthwise.convolve_padded,
    depthwise.input_gradient_padded,
    depthwise.kernel_gradient_padded,
    depthwise.pad_gradient,
)


def _as_they_are(*arrays):
    return arrays


def _barrier(*arrays):
    return jax.lax.optimization_barrier(arrays)


class Row(NamedTuple):
    """An operation's form on a CPU, on a GPU, and the figure that decided."""

    cpu: Any
    gpu: Any
    figure: str


def _both(form, figure):
    return Row(form, form, figure)


TABLE = {
    "1x1": _both(TAPS, "CPU: psp's step 1.26 without; GPU: the program of XLA's own product"),
    "3x3": _both(DIRECT, "GPU: aspp 0.6 GiB less by the order of both gradients"),
    "wide 3x3": Row(WINOGRAD, DIRECT, "CPU: psp's step 1.26 without"),
    "dilated 3x3": Row(DIRECT, PHASES, "GPU: XLA's own slides a window as large as the map"),
    "wide dilated 3x3": Row(
        WINOGRAD, PHASES, "CPU: a map of 256 channels takes a third of XLA's time"
    ),
    "far dilated 3x3": Row(
        TAPS, BANDS, "CPU: aspp's step 1.8 without, before tiles; GPU: its floors 1.06"
    ),
    "wide far dilated 3x3": Row(WINOGRAD, BANDS, "CPU: 0.16 to 0.46 of XLA's time"),
    "depthwise 3x3": Row(SHIFTS, SHIFTS_PADDED, "CPU: psp's step 2.2 without; GPU: bytes 1.8"),
    "grouped 3x3": Row(
        grouped.kernel_gradient,
        grouped.kernel_gradient_plain,
        "CPU: the kernel's gradient of a map of 128 channels takes 9 ms, 1350 without",
    ),
    "pyramid": _both(pyramid_conv.convolve, "CPU: psp's step 1.11 without; GPU: its floors 1.24"),
    "batch norm": _both(batch_norm.normalize, "GPU: 0.14 ms a map of 512 channels, 0.22 without"),
    "batch norm before 1x1": _both(True, "GPU: 0.69 ms a branch of the JPU, 1.06 without"),
    "max pool": _both(max_pool.max_pool, "GPU, deterministic: 0.2 ms, without 1.1 and a sort"),
    "resize": _both(bilinear.resize, "GPU: the loss of 150 classes takes 3.3 ms, 4.4 without"),
    "barrier": Row(_as_they_are, _barrier, "GPU: psp 0.3 GiB less; what jax cannot compile"),
}

# What is not in the table above, and everything on request. Convolutions: convolution.convolve.
PLAIN = {
    "pyramid": pyramid_conv.convolve_plain,
    "batch norm": batch_norm.normalize_plain,
    "batch norm before 1x1": False,
    "max pool": max_pool.max_pool_plain,
    "resize": bilinear.resize_plain,
    "barrier": _as_they_are,
}


def _of_platform(row: Row, take: Callable = lambda form: form) -> Any:
    # The program's platform decides, not this machine's: programs are compiled for others too.
    cpu, gpu = take(row.cpu), take(row.gpu)
    if row.cpu is row.gpu:
        return cpu
    return lambda *arrays: jax.lax.platform_dependent(*arrays, cpu=cpu, default=gpu)


def operation(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q _ k"], stride: int, dilation: int
) -> str:
    """Returns the row of a convolution; "strided", for which there is none, at strides above 1.

    A convolution in groups has the row "grouped 3x3" at any stride.

    Far dilated are those that would spend 15 % of their products on the padding; wide, enough for
    Winograd's tiles, those of 128 channels and 256 pixels, in float32.
    """
    (b, h, w, c), (size, _, c_in, k) = x.shape, kernel.shape
    if 1 < c_in < c:
        return "grouped 3x3"
    if stride > 1:
        return "strided"
    if size == 1:
        return "1x1"
    if c_in == 1:
        return "depthwise 3x3"
    met = max(3 * h - 2 * dilation, h) * max(3 * w - 2 * dilation, w) / (9 * h * w)
    name = "3x3" if dilation == 1 else "far dilated 3x3" if met < 0.85 else "dilated 3x3"
    images = b if isinstance(b, int) else 1  # an exported program has any number of images
    wide = min(c, k) >= 128 and images * h * w >= 256 and jnp.finfo(x.dtype).bits >= 32
    return f"wide {name}" if wide else name


@dataclasses.dataclass(frozen=True)
class Forms:
    """The operations of a network, `kind` "fast" (by the table) or "plain".

    Plain are XLA's own operations with jax's gradients of them, alike for every platform; `plain`
    names those that are so although the others are by the table.
    `forms["barrier"](*arrays)` returns its arrays; a GPU has computed all of them before anything
    reads one.
    """

    kind: str
    plain: frozenset[str] = frozenset()

    def __getitem__(self, operation: str) -> Any:
        """Returns an operation of `PLAIN` in its form: see the function named there."""
        if self.is_plain(operation):
            return PLAIN[operation]
        return _of_platform(TABLE[operation])

    def is_plain(self, operation: str) -> bool:
        return self.kind == "plain" or operation in self.plain or operation not in TABLE

    def convolve(
        self,
        x: Float[Array, "b h w c"],
        kernel: Float[Array, "p q _ k"],
        stride: int = 1,
        dilation: int = 1,
    ) -> Float[Array, "b h2 w2 k"]:
        """Convolves with zero padding dilation * (size - 1) / 2; by (p, q, 1, c) depthwise.

        By a kernel for fewer channels than x has, in groups.
        """
        if self.kind == "plain":
            return convolution.convolve(x, kernel, dilation, stride)
        if stride > 1 and (kernel.shape[0] == 1 or dilation % stride == 0):
            # Its taps meet only every stride-th pixel. Behind a barrier, because jax 0.10.2 aborts
            # for GPUs on a strided slice in a matrix product.
            (x,) = self["barrier"](x[:, ::stride, ::stride])
            dilation, stride = max(dilation // stride, 1), 1
        return self.convolve_by_row(x, kernel, stride, dilation)

    def convolve_by_row(
        self,
        x: Float[Array, "b h w c"],
        kernel: Float[Array, "p q _ k"],
        stride: int,
        dilation: int,
    ) -> Float[Array, "b h2 w2 k"]:
        """As `convolve`, of an x from which pixels that no tap reads have been removed."""
        name = operation(x, kernel, stride, dilation)
        if self.is_plain(name):
            return convolution.convolve(x, kernel, dilation, stride)
        if name == "grouped 3x3":
            return _convolve_grouped(x, kernel, stride, dilation)
        return _convolve(x, kernel, dilation, self)


FAST = Forms("fast")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, dilation, forms):
    return _by_row(x, kernel, dilation, TABLE[operation(x, kernel, 1, dilation)])


# A form takes Python much longer to trace than `inline=True` takes to copy what a layer of the same
# shapes has traced already. The program is the same with and without.
@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def _by_row(x, kernel, dilation, row):
    by_form = _of_platform(row, lambda form: lambda x, kernel: form.convolve(x, kernel, dilation))
    return by_form(x, kernel)


def _forward(x, kernel, dilation, forms):
    return _convolve(x, kernel, dilation, forms), (x, kernel)


def _backward(dilation, forms, saved, gradient):
    x, kernel = saved
    row = TABLE[operation(x, kernel, 1, dilation)]
    return _gradients_by_row(x, kernel, gradient, dilation, row, forms)


@functools.partial(jax.jit, static_argnums=(3, 4, 5), inline=True)
def _gradients_by_row(x, kernel, gradient, dilation, row, forms):
    def by_form(form):
        def gradients(x, kernel, gradient):
            gradient = form.prepare(gradient, dilation)
            of_kernel = form.kernel_gradient(x, gradient, kernel.shape[0], dilation)
            # The kernel's first: XLA would leave what only the update waits for to the end, and
            # keep both maps until then. Flat, or the update takes it in cuDNN's order of axes and
            # not in place.
            flat = of_kernel.astype(kernel.dtype).ravel()
            flat, gradient = forms["barrier"](flat, gradient)
            return form.input_gradient(gradient, kernel, dilation), flat.reshape(kernel.shape)

        return gradients

    return _of_platform(row, by_form)(x, kernel, gradient)


_convolve.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_grouped(x, kernel, stride, dilation):
    return convolution.convolve(x, kernel, dilation, stride)


def _forward_grouped(x, kernel, stride, dilation):
    return _convolve_grouped(x, kernel, stride, dilation), (x, kernel)


def _backward_grouped(stride, dilation, saved, gradient):
    x, kernel = saved

    def by_form(form):
        return lambda x, gradient: form(x, gradient, kernel.shape, stride, dilation).astype(
            kernel.dtype
        )

    of_kernel = _of_platform(TABLE["grouped 3x3"], by_form)(x, gradient)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    transposed = jax.linear_transpose(
        lambda x: convolution.convolve(x, kernel, dilation, stride), shape
    )
    return transposed(gradient)[0], of_kernel


_convolve_grouped.defvjp(_forward_grouped, _backward_grouped)
