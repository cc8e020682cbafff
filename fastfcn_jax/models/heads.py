"""Segmentation heads: PSP, ASPP (DeepLabV3), Enc (EncNet) and FCN.

Each takes a feature map and returns (logits, se): class scores at the map's resolution, and the
Enc head's scores of each class being present in the image (None from the others). `size` is the
true size of each image's map in a padded batch.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.layers import (
    BatchNorm,
    Common,
    Conv,
    ConvModule,
    Linear,
    paddle_normal,
    torch_bias,
    torch_uniform,
)
from fastfcn_jax.models.ops.encoding import encode
from fastfcn_jax.models.ops.precision import widen
from fastfcn_jax.models.ops.pyramid_conv import Grid
from fastfcn_jax.models.padding import Size, inside
from fastfcn_jax.models.pooling import pyramid_pool

HeadOutput = tuple[Float[Array, "b h w k"], Float[Array, "b n"] | None]


class FCNHead(nn.Module):
    """3x3 convolutions, then the classifier; also the auxiliary head.

    Long et al., https://arxiv.org/abs/1411.4038. concat_input: one more convolution over the
    input together with the result (mmseg's FCN as main head). drop_values: dropout takes single
    values instead of whole channels (PaddleSeg).
    """

    num_classes: int
    common: Common
    channels: int
    dropout: float = 0.1
    num_convs: int = 1
    concat_input: bool = False
    drop_values: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> HeadOutput:
        y = x
        for i in range(self.num_convs):
            y = ConvModule(self.channels, self.common, 3, name=f"convs_{i}")(y, size, train=train)
        if self.concat_input:
            y = jnp.concatenate([x, y], axis=-1)
            y = ConvModule(self.channels, self.common, 3, name="conv_cat")(y, size, train=train)
        return _classify(self, y, train, whole_channels=not self.drop_values), None


class PSPHead(nn.Module):
    """Pyramid pooling: average pools of several scales, joined to the map itself.

    Zhao et al., https://arxiv.org/abs/1612.01105.
    """

    num_classes: int
    common: Common
    channels: int
    dropout: float = 0.1
    scales: tuple[int, ...] = (1, 2, 3, 6)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> HeadOutput:
        parts: list[Any] = [x]
        for i, pool in enumerate(pyramid_pool(x, self.scales, size)):
            pool = ConvModule(self.channels, self.common, name=f"psp_modules_{i}_1")(
                pool, train=train
            )
            parts.append(Grid(pool))
        y = ConvModule(self.channels, self.common, 3, name="bottleneck")(parts, size, train=train)
        return _classify(self, y, train), None


class ASPPHead(nn.Module):
    """Atrous spatial pyramid pooling: dilated convolutions and the global mean, side by side.

    Chen et al., https://arxiv.org/abs/1706.05587.
    pool_last: the global mean comes last (official) instead of first (mmseg).
    project: join the branches by a 1x1 convolution and dropout 0.5 before the 3x3 (official).
    """

    num_classes: int
    common: Common
    channels: int
    dropout: float = 0.1
    dilations: tuple[int, ...] = (1, 12, 24, 36)
    pool_last: bool = False
    project: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> HeadOutput:
        (pool,) = pyramid_pool(x, (1,), size)
        pool = ConvModule(self.channels, self.common, name="image_pool_1")(pool, train=train)
        branches = [
            ConvModule(
                self.channels,
                self.common,
                1 if dilation == 1 else 3,
                dilation,
                name=f"aspp_modules_{i}",
            )(x, size, train=train)
            for i, dilation in enumerate(self.dilations)
        ]
        y = [*branches, Grid(pool)] if self.pool_last else [Grid(pool), *branches]
        if self.project:
            y = ConvModule(self.channels, self.common, name="project")(y, size, train=train)
            y = nn.Dropout(0.5, broadcast_dims=(1, 2), deterministic=not train)(y)
        y = ConvModule(self.channels, self.common, 3, name="bottleneck")(y, size, train=train)
        return _classify(self, y, train), None


class EncHead(nn.Module):
    """Context encoding: a code of the whole map gates its channels.

    Zhang et al., https://arxiv.org/abs/1803.08904.
    kernel_size: of the first convolution (3; official with a JPU: 1).
    se_branch: also score from the code which classes are present.
    lateral: fuse two finer maps, each through a 1x1 convolution, into the map that is encoded
        (mmseg's and PaddleSeg's `add_lateral`, the official `--lateral`).
    se_classes: outputs of the SE branch; 0: num_classes (they differ in one-channel models).
    """

    num_classes: int
    common: Common
    channels: int
    dropout: float = 0.1
    kernel_size: int = 3
    se_branch: bool = True
    lateral: bool = False
    se_classes: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        size: Size | None = None,
        fine: Sequence[Float[Array, "b _ _ _"]] = (),
        fine_sizes: Sequence[Size | None] = (),
        *,
        train: bool = False,
    ) -> HeadOutput:
        """`fine`: the maps for `lateral`; `fine_sizes`: their true sizes in a padded batch."""
        bottleneck = ConvModule(self.channels, self.common, self.kernel_size, name="bottleneck")
        x = bottleneck(x, size, train=train)
        if self.lateral:
            x = self.fuse(x, size, fine, fine_sizes or (None,) * len(fine), train)
        y, code = EncModule(self.common, name="enc_module")(x, size, train=train)
        se = None
        if self.se_branch:
            classes = self.se_classes or self.num_classes
            se = widen(Linear(classes, self.common, name="se_layer")(code))
        return _classify(self, y, train), se

    def fuse(self, x, size, fine, fine_sizes, train):
        """The map with `fine` beside it, resized to its size, through a 3x3 convolution."""
        maps = [x]
        for i, (lateral, lateral_size) in enumerate(zip(fine, fine_sizes, strict=True)):
            connect = ConvModule(self.channels, self.common, name=f"lateral_convs_{i}")
            y = connect(lateral, lateral_size, train=train)
            y = self.common.forms["resize"](
                y,
                x.shape[1:3],
                align_corners=self.common.align_corners,
                in_size=lateral_size,
                out_size=size,
            )
            maps.append(y)
        fusion = ConvModule(self.channels, self.common, 3, name="fusion")
        return fusion(jnp.concatenate(maps, axis=-1), size, train=train)


class EncModule(nn.Module):
    """Returns the map gated by its code, and the code."""

    common: Common
    num_codes: int = 32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None, *, train: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b c"]]:
        channels = x.shape[-1]
        projected = ConvModule(channels, self.common, name="encoding_project")(x, train=train)
        residuals = Encoding(self.num_codes, name="encoding_0")(projected, size)
        # The norm is over the code axis: 32 statistics, from the batch and all channels.
        common = Common(axis_name=self.common.axis_name, forms=self.common.forms)
        residuals = BatchNorm(common, name="encoding_1")(residuals.swapaxes(1, 2), train=train)
        code = nn.relu(residuals).mean(axis=-1)
        gate = nn.sigmoid(Linear(channels, self.common, name="fc_0")(code))
        # The gate acts on the map itself, not on its projection.
        return nn.relu(x + x * gate[:, None, None, :]), code


class Encoding(nn.Module):
    """Residuals of all pixels to learned codewords, softly assigned and summed: (b, codes, c)."""

    num_codes: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: Size | None = None
    ) -> Float[Array, "b n c"]:
        b, h, w, c = x.shape
        limit = (self.num_codes * c) ** -0.5

        def symmetric(key, shape):
            return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

        def negative(key, shape):
            return jax.random.uniform(key, shape, minval=-1.0, maxval=0.0)

        codewords = self.param("codewords", symmetric, (self.num_codes, c))
        scale = self.param("scale", negative, (self.num_codes,))
        counted = None if size is None else inside(size, h, w).reshape(b, h * w, 1)
        return encode(x.reshape(b, h * w, c), codewords, scale, counted)


def _classify(head, x, train, whole_channels=True):
    """Drops whole channels (or values), then scores the classes by the 1x1 `conv_seg`."""
    shared = (1, 2) if whole_channels else ()
    x = nn.Dropout(head.dropout, broadcast_dims=shared, deterministic=not train)(x)
    init, bias_init = torch_uniform, torch_bias(x.shape[-1])
    if head.common.paddle_start:
        init, bias_init = paddle_normal, nn.initializers.zeros
    elif head.common.narrow_classifier:
        init, bias_init = nn.initializers.normal(0.01), nn.initializers.zeros
    conv = Conv(
        head.num_classes,
        head.common,
        use_bias=True,
        kernel_init=init,
        bias_init=bias_init,
        name="conv_seg",
    )
    return widen(conv(x))


HEADS = {"psp": PSPHead, "aspp": ASPPHead, "enc": EncHead, "fcn": FCNHead}
