"""The single operations whose plain and fast forms `gpu_program.py` and `time_forms.py` compare."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fastfcn_jax.models.ops import batch_norm, normalized
from fastfcn_jax.models.ops.forms import FAST, Forms
from fastfcn_jax.models.ops.pyramid_conv import Grid
from fastfcn_jax.training import losses

Form = tuple[str, Callable, tuple]
KINDS = {"plain": Forms("plain"), "fast": FAST}  # fast: as the program's platform takes it


def all_forms(num_classes: int, dtype=jnp.bfloat16, batch: int = 8) -> Iterator[Form]:
    """Yields (name, function, shapes of its arguments) at the sizes of 512x1024 images."""
    for family in FAMILIES.values():
        yield from family(dtype, batch, (64, 128))


def _depthwise(dtype, batch, size) -> Iterator[Form]:
    """JPU's four dilations over 1536 channels."""
    x = jax.ShapeDtypeStruct((batch, *size, 1536), dtype)
    kernels = jax.ShapeDtypeStruct((4, 3, 3, 1, 1536), dtype)

    def four(forms, x, kernels):
        return [forms.convolve(x, kernels[i], dilation=2**i) for i in range(4)]

    yield from _passes("depthwise", four, (x, kernels))


def _pyramid(dtype, batch, size) -> Iterator[Form]:
    """PSP's bottleneck: 2048 channels of the map, 512 of each grid."""
    x = jax.ShapeDtypeStruct((batch, *size, 2048), dtype)
    grids = [jax.ShapeDtypeStruct((batch, s, s, 512), dtype) for s in (1, 2, 3, 6)]
    kernel = jax.ShapeDtypeStruct((3, 3, 4096, 512), dtype)

    def bottleneck(forms, x, kernel, *grids):
        return forms["pyramid"](forms, [x, *map(Grid, grids)], kernel, False, None)

    yield from _passes("psp's bottleneck", bottleneck, (x, kernel, *grids))


def _image_pool(dtype, batch, size) -> Iterator[Form]:
    """ASPP's bottleneck: the image pool beside four maps, 512 channels each."""
    maps = [jax.ShapeDtypeStruct((batch, *size, 512), dtype)] * 4
    grid = jax.ShapeDtypeStruct((batch, 1, 1, 512), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 2560, 512), dtype)

    def bottleneck(forms, grid, kernel, *maps):
        return forms["pyramid"](forms, [Grid(grid), *maps], kernel, False, None)

    yield from _passes("aspp's bottleneck", bottleneck, (grid, kernel, *maps))


def _dilated(dtype, batch, size) -> Iterator[Form]:
    """PSP's bottleneck without its grids, ASPP's dilated branches, and the dilated 3x3 of layers
    3 and 4, one at a time.
    """
    h, w = size
    cases = [((h, w), 2048, 512, dilation) for dilation in (1, 12, 24, 36)]
    cases += [((h // 2, w // 2), 256, 256, 2), ((h // 4, w // 4), 512, 512, 4)]
    for pixels, channels, features, dilation in cases:
        x = jax.ShapeDtypeStruct((batch, *pixels, channels), dtype)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, features), dtype)

        def branch(forms, x, kernel, dilation=dilation):
            return forms.convolve(x, kernel, dilation=dilation)

        yield from _passes(f"3x3 of dilation {dilation}", branch, (x, kernel))


def _max_pool(dtype, batch, size) -> Iterator[Form]:
    x = jax.ShapeDtypeStruct((batch, 4 * size[0], 4 * size[1], 64), dtype)
    yield from _passes("max pool", lambda forms, x: forms["max pool"](x), (x,))


def _batch_norm(dtype, batch, size) -> Iterator[Form]:
    """A 512-channel map in training, with the ReLU behind it."""
    x = jax.ShapeDtypeStruct((batch, *size, 512), dtype)
    channels = jax.ShapeDtypeStruct((512,), jnp.float32)

    def normalised(forms, x, scale, bias):
        return jax.nn.relu(forms["batch norm"](x, scale, bias, None)[0])

    yield from _passes("batch norm", normalised, (x, channels, channels))


def _normalized(dtype, batch, size) -> Iterator[Form]:
    """A JPU branch's BatchNorm of 1536 channels in training, with the 1x1 behind it."""
    x = jax.ShapeDtypeStruct((batch, *size, 1536), dtype)
    channels = jax.ShapeDtypeStruct((1536,), jnp.float32)
    kernel = jax.ShapeDtypeStruct((1, 1, 1536, 512), jnp.float32)

    def branch(forms, x, scale, bias, kernel):
        if not forms["batch norm before 1x1"]:
            y, _, _ = forms["batch norm"](x, scale, bias, None)
            return forms.convolve(y, kernel.astype(dtype))
        found: Any = batch_norm.statistics(x)
        mean, var = found
        factor = jax.lax.rsqrt(var + batch_norm.EPS) * scale
        deferred = normalized.Normalized(x, mean, factor, bias)
        return normalized.convolve_normalized(forms, deferred, kernel)

    yield from _passes("batch norm before 1x1", branch, (x, channels, channels, kernel))


def _upsampling(dtype, batch, size) -> Iterator[Form]:
    """Doubling c4's map within the JPU."""
    x = jax.ShapeDtypeStruct((batch, size[0] // 2, size[1] // 2, 512), dtype)
    yield from _passes("upsampling", lambda forms, x: forms["resize"](x, size), (x,))


def _loss(dtype, batch, size) -> Iterator[Form]:
    """Gradient of the cross entropy of logits enlarged eightfold: Cityscapes, ADE20K."""
    labels = jax.ShapeDtypeStruct((batch, 8 * size[0], 8 * size[1]), jnp.uint8)

    def loss(forms, logits, labels):
        large = forms["resize"](logits, labels.shape[1:])
        return losses.pixel_cross_entropy(large, labels)[0].sum()

    for classes in (19, 150):
        logits = jax.ShapeDtypeStruct((batch, *size, classes), jnp.float32)
        for kind, forms in KINDS.items():
            gradient = jax.grad(functools.partial(loss, forms))
            yield f"{kind} loss of {classes} gradient", gradient, (logits, labels)


def _passes(name, operation, shapes) -> Iterator[Form]:
    """Yields, plain and fast, the forward pass and the gradient in all arguments.

    The gradient is of a given cotangent: a sum's, all ones, would be simplified away.
    """
    for kind, forms in KINDS.items():
        run = functools.partial(operation, forms)
        yield f"{kind} {name} forward", run, shapes

        def gradient(cotangent, *arguments, run=run):
            return jax.vjp(run, *arguments)[1](cotangent)

        yield f"{kind} {name} gradient", gradient, (jax.eval_shape(run, *shapes), *shapes)


FAMILIES = {
    "depthwise": _depthwise,
    "pyramid": _pyramid,
    "image_pool": _image_pool,
    "dilated": _dilated,
    "max_pool": _max_pool,
    "batch_norm": _batch_norm,
    "normalized": _normalized,
    "upsampling": _upsampling,
    "loss": _loss,
}
