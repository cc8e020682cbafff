"""Convolutions and normalisations that equal PyTorch's, in NHWC."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.errors import UserError
from fastfcn_jax.models.ops.batch_norm import EPS, statistics
from fastfcn_jax.models.ops.forms import FAST, Forms
from fastfcn_jax.models.ops.normalized import Normalized, convolve_normalized
from fastfcn_jax.models.ops.precision import widen
from fastfcn_jax.models.ops.pyramid_conv import channels
from fastfcn_jax.models.padding import Size, blank_outside, inside

# PyTorch's nn.Conv2d and nn.Linear: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Not truncated, fan_out: `he_normal` would be truncated and fan_in.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def paddle_normal(key, shape, dtype=jnp.float32):
    """Paddle's Conv2D: N(0, 2 / (k * k * c)); c counts all channels of a depthwise one too."""
    height, width, c_in, features = shape
    c = features if c_in == 1 else c_in
    return jax.random.normal(key, shape, dtype) * math.sqrt(2 / (height * width * c))


@dataclasses.dataclass(frozen=True)
class Common:
    """What all layers of one model share.

    align_corners: of every bilinear resize in the network.
    kernel_init: of the convolutions of neck and heads that a normalisation follows.
    narrow_classifier: classifiers start at N(0, 0.01) with bias 0; else as PyTorch's default.
    paddle_start: classifiers and linear layers start as Paddle's defaults instead.
    dtype: compute type; parameters, statistics and logits stay float32.
    axis_name: mapped axis over which BatchNorm takes its statistics in training; None: local.
    folded: BatchNorm has been folded into the convolutions (`folding.fold`); inference only.
    forms: in which form each operation is computed.
    """

    align_corners: bool = False
    kernel_init: Any = kaiming_fan_out
    narrow_classifier: bool = True
    paddle_start: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None
    folded: bool = False
    forms: Forms = FAST


class Conv(nn.Module):
    """Convolution with PyTorch's symmetric zero padding, which keeps the size at stride 1.

    Takes a map, or a list of maps and pooled `Grid`s that stand for their concatenation, grids
    upsampled (at stride and dilation 1), or for a 1x1 a `Normalized` map. Parameters: kernel
    (k, k, c / groups, features), with `use_bias` bias (features,).
    """

    features: int
    common: Common
    kernel_size: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    use_bias: bool = False
    kernel_init: Any = None  # None: the one of `common`
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"] | Normalized | list, size: Size | None = None
    ) -> Float[Array, "b h2 w2 k"]:
        k, dtype, forms = self.kernel_size, self.common.dtype, self.common.forms
        c_in = channels(x) if isinstance(x, list) else x.shape[-1]
        init = self.kernel_init or self.common.kernel_init
        wide_kernel = self.param("kernel", init, (k, k, c_in // self.groups, self.features))
        kernel = wide_kernel.astype(dtype)
        if isinstance(x, Normalized):
            y = convolve_normalized(forms, x, wide_kernel)
        elif isinstance(x, list):
            parts = jax.tree.map(lambda part: part.astype(dtype), x)
            y = forms["pyramid"](forms, parts, kernel, self.common.align_corners, size)
        else:
            if k > 1:  # its taps would read what stands in the padding of the batch
                x = blank_outside(x, size)
            y = forms.convolve(x.astype(dtype), kernel, self.stride, self.dilation)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            y = y + bias.astype(dtype)
        return y


class DepthwiseConv(nn.Module):
    """3x3 convolution of each channel by itself. Parameter: kernel (3, 3, 1, c)."""

    common: Common
    dilation: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None
    ) -> Float[Array, "b h w c"]:
        shape = (3, 3, 1, x.shape[-1])
        kernel = self.param("kernel", self.common.kernel_init, shape)
        dtype = self.common.dtype
        x = blank_outside(x, size).astype(dtype)
        return self.common.forms.convolve(x, kernel.astype(dtype), dilation=self.dilation)


class BatchNorm(nn.Module):
    """PyTorch's BatchNorm over all axes but the last, synchronised over `common.axis_name`.

    Normalises by the biased variance, keeps the unbiased one; momentum 0.1 and eps 1e-5. In
    float32 whatever x is. Raises UserError in training when a channel has a single value.
    """

    common: Common
    scale_init: Any = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], *, train: bool = False) -> Float[Array, "*b c"]:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        if self.common.folded:  # the scale went into the kernel, the mean into the bias
            return x + bias.astype(x.dtype)
        scale = self.param("scale", self.scale_init, (x.shape[-1],))
        running = self._running(x)
        if not train:
            mean, var = running[0].value, running[1].value
            factor = jax.lax.rsqrt(var + EPS) * scale
            return ((widen(x) - mean) * factor + bias).astype(x.dtype)
        y, mean, var = self.common.forms["batch norm"](x, scale, bias, self._axis_name())
        self._update(running, mean, var, x)
        return y

    def _running(self, x):
        channels = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        return mean, self.variable("batch_stats", "var", jnp.ones, channels)

    def _axis_name(self):
        return None if self.is_initializing() else self.common.axis_name

    def _update(self, running, mean, var, x):
        if self.is_initializing():
            return
        axis_name = self._axis_name()
        replicas = 1 if axis_name is None else jax.lax.psum(1, axis_name)
        count = x.size // x.shape[-1] * replicas
        if count < 2:
            raise UserError(
                "BatchNorm has a single value per channel to take statistics from: "
                "raise train.batch_size to 2 or more"
            )
        unbiased = var * (count / (count - 1))
        running_mean, running_var = running
        running_mean.value = 0.9 * running_mean.value + 0.1 * mean
        running_var.value = 0.9 * running_var.value + 0.1 * unbiased


class DeferredBatchNorm(BatchNorm):
    """The same, left to the 1x1 convolution that follows at once; not for folded models."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Normalized:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        scale = self.param("scale", self.scale_init, (x.shape[-1],))
        running = self._running(x)
        if train:
            found: Any = statistics(x, self._axis_name())
            mean, var = found
            self._update(running, mean, var, x)
        else:
            mean, var = running[0].value, running[1].value
        return Normalized(x, mean, jax.lax.rsqrt(var + EPS) * scale, bias)


class GroupNorm(nn.Module):
    """PyTorch's GroupNorm (eps 1e-5) over each image's true extent. In float32."""

    groups: int = 32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        wide = widen(x).reshape(b, h * w, self.groups, c // self.groups)
        where = None if size is None else inside(size, h, w).reshape(b, h * w, 1, 1)
        mean = wide.mean((1, 3), keepdims=True, where=where)
        var = jnp.square(wide - mean).mean((1, 3), keepdims=True, where=where)
        normal = ((wide - mean) * jax.lax.rsqrt(var + 1e-5)).reshape(b, h, w, c)
        return (normal * scale + bias).astype(x.dtype)


class ConvModule(nn.Module):
    """Convolution `conv`, normalisation `bn` (or `gn`), ReLU: mmcv's ConvModule."""

    features: int
    common: Common
    kernel_size: int = 1
    dilation: int = 1
    group_norm: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"] | Normalized | list,
        size: Size | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b h w k"]:
        conv = Conv(
            self.features, self.common, self.kernel_size, dilation=self.dilation, name="conv"
        )
        return nn.relu(_normalize(conv(x, size), size, train, self.common, self.group_norm))


class DepthwiseModule(nn.Module):
    """Depthwise convolution `conv` and normalisation; no ReLU (the JPU switches it off).

    A 1x1 convolution has to take the result, which may be a `Normalized` map.
    """

    common: Common
    dilation: int
    group_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> Float[Array, "b h w c"] | Normalized:
        y = DepthwiseConv(self.common, self.dilation, name="conv")(x, size)
        if self.group_norm or self.common.folded or not self.common.forms["batch norm before 1x1"]:
            return _normalize(y, size, train, self.common, self.group_norm)
        return DeferredBatchNorm(self.common, name="bn")(y, train=train)


def _normalize(x, size, train, common, group_norm):
    if group_norm:
        return GroupNorm(name="gn")(x, size)
    return BatchNorm(common, name="bn")(x, train=train)


class SeparableConv(nn.Module):
    """Depthwise 3x3 with normalisation, then 1x1 with normalisation and ReLU."""

    features: int
    common: Common
    dilation: int
    group_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> Float[Array, "b h w k"]:
        y = DepthwiseModule(self.common, self.dilation, self.group_norm, name="depthwise_conv")(
            x, size, train=train
        )
        return ConvModule(
            self.features, self.common, group_norm=self.group_norm, name="pointwise_conv"
        )(y, size, train=train)


def torch_bias(fan_in: int):
    """Returns PyTorch's initialiser of the bias of a layer with `fan_in` inputs a value."""
    limit = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class Linear(nn.Module):
    """PyTorch's (or Paddle's) nn.Linear and its default start. Parameters: kernel (c, k), bias."""

    features: int
    common: Common

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b k"]:
        dtype, fan_in = self.common.dtype, x.shape[-1]
        init, bias_init = torch_uniform, torch_bias(fan_in)
        if self.common.paddle_start:
            init, bias_init = nn.initializers.glorot_uniform(), nn.initializers.zeros
        kernel = self.param("kernel", init, (fan_in, self.features))
        bias = self.param("bias", bias_init, (self.features,))
        return x.astype(dtype) @ kernel.astype(dtype) + bias.astype(dtype)
