"""The single operations whose forms `gpu_program.py` and `time_forms.py` compare."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from fastfcn_jax.models import spatial
from fastfcn_jax.models.ops import (
    batch_norm,
    convolution,
    depthwise,
    encoding,
    joint,
    max_pool,
    normalized,
    taps,
)
from fastfcn_jax.training import losses

Form = tuple[str, Callable, tuple]


def all_forms(num_classes: int, dtype=jnp.bfloat16, batch: int = 8) -> Iterator[Form]:
    """Yields (name, function, shapes of its arguments) at the sizes of 512x1024 images."""
    for family in FAMILIES.values():
        yield from family(dtype, batch, (64, 128))


def _depthwise(dtype, batch, size) -> Iterator[Form]:
    """JPU's four dilations over 1536 channels."""
    x = jax.ShapeDtypeStruct((batch, *size, 1536), dtype)
    kernels = jax.ShapeDtypeStruct((4, 3, 3, 1, 1536), dtype)
    for form in (depthwise.depthwise_conv_direct, depthwise.depthwise_conv):

        def forward(x, kernels, form=form):
            return [form(x, kernels[i], 2**i) for i in range(4)]

        name = form.__name__
        yield f"{name} forward", forward, (x, kernels)
        cotangent = [x] * 4
        yield (
            f"{name} input gradient",
            lambda x, k, g, f=forward: jax.vjp(lambda x: f(x, k), x)[1](g),
            (x, kernels, cotangent),
        )
        yield (
            f"{name} kernel gradient",
            lambda x, k, g, f=forward: jax.vjp(lambda k: f(x, k), k)[1](g),
            (x, kernels, cotangent),
        )


def _encoding(dtype, batch, size) -> Iterator[Form]:
    x = jax.ShapeDtypeStruct((batch, size[0] * size[1], 512), dtype)
    codewords = jax.ShapeDtypeStruct((32, 512), jnp.float32)
    scale = jax.ShapeDtypeStruct((32,), jnp.float32)
    for form in (encoding.encode_direct, encoding.encode):
        yield from _passes(form.__name__, form, (x, codewords, scale))


def _pyramid(dtype, batch, size) -> Iterator[Form]:
    """PSP's bottleneck: 2048 channels of the map, 512 of each grid."""
    x = jax.ShapeDtypeStruct((batch, *size, 2048), dtype)
    grids = [jax.ShapeDtypeStruct((batch, s, s, 512), dtype) for s in (1, 2, 3, 6)]
    kernel = jax.ShapeDtypeStruct((3, 3, 4096, 512), dtype)
    for form in (joint.joint_conv_direct, joint.joint_conv):

        def bottleneck(x, kernel, *grids, form=form):
            return form([x, *map(joint.Grid, grids)], kernel)

        yield from _passes(f"{form.__name__} psp", bottleneck, (x, kernel, *grids))


def _image_pool(dtype, batch, size) -> Iterator[Form]:
    """ASPP's bottleneck: the image pool beside four maps, 512 channels each."""
    maps = [jax.ShapeDtypeStruct((batch, *size, 512), dtype)] * 4
    grid = jax.ShapeDtypeStruct((batch, 1, 1, 512), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 2560, 512), dtype)
    for form in (joint.joint_conv_direct, joint.joint_conv):

        def bottleneck(grid, kernel, *maps, form=form):
            return form([joint.Grid(grid), *maps], kernel)

        yield from _passes(f"{form.__name__} aspp", bottleneck, (grid, kernel, *maps))


def _dilated(dtype, batch, size) -> Iterator[Form]:
    """PSP's bottleneck without its grids, ASPP's dilated branches, and the dilated 3x3 of layers
    3 and 4, one at a time.

    `convolve` is what the models take: its forms are chosen by platform and pass.
    """
    h, w = size
    cases = [((h, w), 2048, 512, dilation) for dilation in (1, 12, 24, 36)]
    cases += [((h // 2, w // 2), 256, 256, 2), ((h // 4, w // 4), 512, 512, 4)]
    forms = {
        "convolve_direct": convolution.convolve_direct,
        "taps.convolve": taps.convolve,
        "convolve": convolution.convolve,
    }
    for pixels, channels, features, dilation in cases:
        x = jax.ShapeDtypeStruct((batch, *pixels, channels), dtype)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, features), dtype)
        for name, form in forms.items():
            branch = functools.partial(form, dilation=dilation)
            yield from _passes(f"{name} dilation {dilation}", branch, (x, kernel))


def _concatenation(dtype, batch, size) -> Iterator[Form]:
    """The Enc head's 3x3 over the JPU's four branches: one convolution, or the sum of four."""
    maps = [jax.ShapeDtypeStruct((batch, *size, 512), dtype)] * 4
    kernel = jax.ShapeDtypeStruct((3, 3, 2048, 512), dtype)

    def concatenated(kernel, *maps):
        return convolution.convolve(jnp.concatenate(maps, -1), kernel)

    def summed(kernel, *maps):
        kernels = jnp.split(kernel, len(maps), axis=2)
        return sum(convolution.convolve(x, k) for x, k in zip(maps, kernels, strict=True))

    for form in (concatenated, summed):
        yield from _passes(form.__name__, form, (kernel, *maps))


def _strided(dtype, batch, size) -> Iterator[Form]:
    """layer4's first 3x3, strided and dilated, and layer3's strided 1x1 shortcut."""
    h, w = size[0] // 2, size[1] // 2
    x = jax.ShapeDtypeStruct((batch, h, w, 512), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 512, 512), dtype)
    fine = jax.ShapeDtypeStruct((batch, *size, 512), dtype)
    shortcut = jax.ShapeDtypeStruct((1, 1, 512, 1024), dtype)
    for form in (convolution.convolve_direct, convolution.convolve):
        dilated = functools.partial(form, stride=2, dilation=2)
        yield from _passes(f"{form.__name__} 3x3", dilated, (x, kernel))
        yield from _passes(
            f"{form.__name__} 1x1", functools.partial(form, stride=2), (fine, shortcut)
        )


def _max_pool(dtype, batch, size) -> Iterator[Form]:
    x = jax.ShapeDtypeStruct((batch, 4 * size[0], 4 * size[1], 64), dtype)
    for form in (max_pool.max_pool_direct, max_pool.max_pool):
        yield from _passes(form.__name__, form, (x,))


def _batch_norm(dtype, batch, size) -> Iterator[Form]:
    """A 512-channel map in training, with the ReLU behind it."""
    x = jax.ShapeDtypeStruct((batch, *size, 512), dtype)
    channels = jax.ShapeDtypeStruct((512,), jnp.float32)
    for form in (batch_norm.batch_norm_direct, batch_norm.batch_norm):

        def normalised(x, scale, bias, form=form):
            return jax.nn.relu(form(x, scale, bias, None)[0])

        yield f"{form.__name__} forward", normalised, (x, channels, channels)
        yield (
            f"{form.__name__} gradient",
            lambda x, s, b, g, f=normalised: jax.vjp(f, x, s, b)[1](g),
            (x, channels, channels, x),
        )


def _normalized(dtype, batch, size) -> Iterator[Form]:
    """A JPU branch's BatchNorm of 1536 channels in training, with the 1x1 behind it."""
    x = jax.ShapeDtypeStruct((batch, *size, 1536), dtype)
    channels = jax.ShapeDtypeStruct((1536,), jnp.float32)
    kernel = jax.ShapeDtypeStruct((1, 1, 1536, 512), jnp.float32)

    def normalised_first(x, scale, bias, kernel):
        return convolution.convolve(batch_norm.batch_norm(x, scale, bias)[0], kernel.astype(dtype))

    def convolve_normalized(x, scale, bias, kernel):
        mean, var = batch_norm.statistics(x)
        factor = jax.lax.rsqrt(var + batch_norm.EPS) * scale
        deferred = normalized.Normalized(x, mean, factor, bias)
        return normalized.convolve_normalized(deferred, kernel)

    for form in (normalised_first, convolve_normalized):
        yield from _passes(f"{form.__name__} 1x1", form, (x, channels, channels, kernel))


def _upsampling(dtype, batch, size) -> Iterator[Form]:
    """Doubling c4's map within the JPU."""
    x = jax.ShapeDtypeStruct((batch, size[0] // 2, size[1] // 2, 512), dtype)

    def library(x):
        return jax.image.resize(x, (batch, *size, 512), "bilinear")

    def resize(x):
        return spatial.resize(x, size)

    for form in (library, resize):
        yield from _passes(f"{form.__name__} upsampling", form, (x,))


def _loss(dtype, batch, size) -> Iterator[Form]:
    """Gradient of the cross entropy of logits enlarged eightfold: Cityscapes, ADE20K."""
    labels = jax.ShapeDtypeStruct((batch, 8 * size[0], 8 * size[1]), jnp.uint8)

    def loss_direct(logits, labels):
        large = spatial.resize(logits, labels.shape[1:])
        at_label = labels.astype(jnp.int32)[..., None]
        return -jnp.take_along_axis(jax.nn.log_softmax(large), at_label, -1).sum()

    def loss(logits, labels):
        large = spatial.resize(logits, labels.shape[1:])
        return losses.pixel_cross_entropy(large, labels)[0].sum()

    for classes in (19, 150):
        logits = jax.ShapeDtypeStruct((batch, *size, classes), jnp.float32)
        for form in (loss_direct, loss):
            yield f"{form.__name__} {classes} gradient", jax.grad(form), (logits, labels)


def _passes(name, form, shapes) -> Iterator[Form]:
    """Yields the forward pass, and the gradient in all arguments for a given cotangent.

    A sum's cotangent, all ones, would be simplified away.
    """
    yield f"{name} forward", form, shapes

    def gradient(cotangent, *arguments):
        return jax.vjp(form, *arguments)[1](cotangent)

    yield f"{name} gradient", gradient, (jax.eval_shape(form, *shapes), *shapes)


FAMILIES = {
    "depthwise": _depthwise,
    "encoding": _encoding,
    "pyramid": _pyramid,
    "image_pool": _image_pool,
    "dilated": _dilated,
    "concatenation": _concatenation,
    "strided": _strided,
    "max_pool": _max_pool,
    "batch_norm": _batch_norm,
    "normalized": _normalized,
    "upsampling": _upsampling,
    "loss": _loss,
}
