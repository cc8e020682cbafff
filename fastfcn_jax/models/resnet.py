"""ResNets v1b, v1c and v1d, ResNeXt and wide ResNet; strided, dilated or both.

He et al., https://arxiv.org/abs/1512.03385 and https://arxiv.org/abs/1812.01187 (stem, shortcuts);
Xie et al., https://arxiv.org/abs/1611.05431. Deep stem and dilation are those of mmsegmentation
1.2.2, of the official FastFCN or of PaddleSeg, by argument.
"""

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from fastfcn_jax.models.layers import BatchNorm, Common, Conv, kaiming_fan_out
from fastfcn_jax.models.padding import Size, at_stride, blank_outside
from fastfcn_jax.models.pooling import average_pairs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; only the first one is dilated, as in mmseg."""

    width: int
    common: Common
    stride: int = 1
    dilation: int = 1
    average_downsample: bool = False
    last_scale_init: nn.initializers.Initializer = nn.initializers.ones

    expansion = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None, train: bool
    ) -> Float[Array, "b h2 w2 k"]:
        layers = _Layers(self.common, train)
        small = at_stride(size, self.stride)
        y = layers.conv("conv1", x, size, self.width, 3, self.stride, self.dilation)
        y = nn.relu(layers.norm("bn1", y))
        y = layers.conv("conv2", y, small, self.width, 3)
        y = layers.norm("bn2", y, self.last_scale_init)
        average = self.average_downsample
        return nn.relu(y + layers.shortcut(x, size, self.width, self.stride, average))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut; the stride and the dilation sit on the 3x3.

    widening: channels of the 3x3 against `width`; groups: of the 3x3.
    """

    width: int
    common: Common
    stride: int = 1
    dilation: int = 1
    average_downsample: bool = False
    widening: int = 1
    groups: int = 1
    last_scale_init: nn.initializers.Initializer = nn.initializers.ones

    expansion = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None, train: bool
    ) -> Float[Array, "b h2 w2 k"]:
        layers = _Layers(self.common, train)
        inner = self.widening * self.width
        y = nn.relu(layers.norm("bn1", layers.conv("conv1", x, size, inner)))
        y = layers.conv("conv2", y, size, inner, 3, self.stride, self.dilation, self.groups)
        y = nn.relu(layers.norm("bn2", y))
        y = layers.conv("conv3", y, None, 4 * self.width)
        y = layers.norm("bn3", y, self.last_scale_init)
        average = self.average_downsample
        return nn.relu(y + layers.shortcut(x, size, 4 * self.width, self.stride, average))


class _Layers(NamedTuple):
    """Names and calls the layers of one block or stem inside its compact `__call__`."""

    common: Common
    train: bool

    def conv(self, name, x, size, width, kernel_size=1, stride=1, dilation=1, groups=1):
        conv = Conv(
            width,
            self.common,
            kernel_size,
            stride,
            dilation,
            groups,
            name=name,
            kernel_init=kaiming_fan_out,
        )
        return conv(x, size)

    def norm(self, name, x, scale_init=nn.initializers.ones):
        return BatchNorm(self.common, scale_init, name=name)(x, train=self.train)

    def shortcut(self, x, size, width, stride, average):
        if stride == 1 and x.shape[-1] == width:
            return x
        if not average:
            return self.norm("downsample_1", self.conv("downsample_0", x, None, width, 1, stride))
        # In the references a pooling layer takes the place of downsample_0, even at stride 1.
        x = average_pairs(x, size) if stride > 1 else x
        return self.norm("downsample_2", self.conv("downsample_1", x, None, width))


class Blocks(NamedTuple):
    """The blocks of the four stages; see `Bottleneck` for `widening` and `groups`."""

    block: type[BasicBlock] | type[Bottleneck]
    counts: tuple[int, int, int, int]
    widening: int = 1
    groups: int = 1


BLOCKS = {
    "resnet18": Blocks(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Blocks(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Blocks(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Blocks(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Blocks(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Blocks(Bottleneck, (3, 4, 6, 3), widening=2, groups=32),
    "wide_resnet50_2": Blocks(Bottleneck, (3, 4, 6, 3), widening=2),
}


class ResNet(nn.Module):
    """Returns the pyramid (c2, c3, c4, c5) of normalised images.

    variant: a name in `BLOCKS`.
    common: see `layers.Common`.
    base_width: channels of layer1's 3x3 convolutions (`widening` times as many in a wide one).
    stem_widths: channels of the three 3x3 convolutions of the stem, or of its single 7x7 one.
    average_downsample: shortcuts average 2x2 where they down-sample, then convolve (ResNet-D).
    strides, dilations: of the four stages.
    half_first: where a stage dilates, its first block has half the dilation (not in PaddleSeg).
    zero_last_scale: start each residual branch at 0.
    remat: recompute each block's activations in the backward pass.
    """

    variant: str
    common: Common
    base_width: int = 64
    stem_widths: tuple[int, ...] = (32, 32, 64)
    average_downsample: bool = False
    strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    dilations: tuple[int, int, int, int] = (1, 1, 2, 4)
    half_first: bool = True
    zero_last_scale: bool = True
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        x, size = self._stem(images, size, train)
        block, counts, widening, groups = BLOCKS[self.variant]
        build = nn.remat(block, static_argnums=(3,)) if self.remat else block
        wide: dict[str, Any] = {}
        if block is Bottleneck:
            wide = {"widening": widening, "groups": groups}
        last_scale_init = nn.initializers.zeros if self.zero_last_scale else nn.initializers.ones
        pyramid = []
        for stage, count in enumerate(counts):
            for i in range(count):
                x = build(
                    self.base_width * 2**stage,
                    self.common,
                    stride=self.strides[stage] if i == 0 else 1,
                    dilation=self.dilation_of(stage, i),
                    average_downsample=self.average_downsample,
                    **wide,
                    last_scale_init=last_scale_init,
                    name=f"layer{stage + 1}_{i}",
                )(x, size, train)
                if i == 0:
                    size = at_stride(size, self.strides[stage])
            pyramid.append(x)
        return tuple(pyramid)

    def _stem(self, x, size, train):
        layers = _Layers(self.common, train)
        if len(self.stem_widths) == 1:
            x = layers.conv("conv1", x, size, self.stem_widths[0], 7, 2)
            x, size = nn.relu(layers.norm("bn1", x)), at_stride(size, 2)
            return self.common.forms["max pool"](blank_outside(x, size)), at_stride(size, 2)
        for i, width in enumerate(self.stem_widths):
            stride = 2 if i == 0 else 1
            x = layers.conv(f"stem_{3 * i}", x, size, width, 3, stride)
            x = nn.relu(layers.norm(f"stem_{3 * i + 1}", x))
            size = at_stride(size, stride)
        return self.common.forms["max pool"](blank_outside(x, size)), at_stride(size, 2)

    def dilation_of(self, stage: int, block: int) -> int:
        """The dilation of a block; both count from 0."""
        dilation = self.dilations[stage]
        return max(dilation // 2, 1) if block == 0 and self.half_first else dilation

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Strides of (c2, c3, c4, c5) against the image."""
        strides, product = [], 4
        for stride in self.strides:
            product *= stride
            strides.append(product)
        return tuple(strides)
