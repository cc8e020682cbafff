"""Joint pyramid upsampling: a stride-8 map from the maps of strides 8, 16 and 32.

Wu et al., FastFCN, https://arxiv.org/abs/1903.11816, as in mmsegmentation 1.2.2 (`JPU`) and in
the official code (`JPU`, and `JPUX` for its chained variant).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.layers import Common, ConvModule, SeparableConv
from fastfcn_jax.models.padding import Size


class JPU(nn.Module):
    """Takes (c3, c4, c5); returns a map of c3's size with 4 * width channels.

    coarse_first: concatenate c5, c4, c3 (official) instead of c3, c4, c5 (mmseg).
    """

    width: int
    common: Common
    coarse_first: bool = False
    dilations: tuple[int, ...] = (1, 2, 4, 8)

    @nn.compact
    def __call__(
        self,
        features: Sequence[Float[Array, "b _ _ _"]],
        sizes: Sequence[Size | None] = (None, None, None),
        *,
        train: bool = False,
    ) -> Float[Array, "b h w k"]:
        maps = [
            ConvModule(self.width, self.common, 3, name=f"conv_layers_{i}_0")(x, size, train=train)
            for i, (x, size) in enumerate(zip(features, sizes, strict=True))
        ]
        maps = [
            _upsample(x, maps[0], size, sizes[0], self.common)
            for x, size in zip(maps, sizes, strict=True)
        ]
        # Without the barrier the GPU kernel that pads the map for its branches makes the three maps
        # too, and is bound by its instructions.
        (joint,) = self.common.forms["barrier"](
            jnp.concatenate(maps[::-1] if self.coarse_first else maps, axis=-1)
        )
        branches = [
            SeparableConv(self.width, self.common, dilation, name=f"dilation_layers_{i}_0")(
                joint, sizes[0], train=train
            )
            for i, dilation in enumerate(self.dilations)
        ]
        # Written once: jax 0.11.2 finds no kernel for GPUs for the concatenation inside a product.
        return self.common.forms["barrier"](jnp.concatenate(branches, axis=-1))[0]


class JPUX(nn.Module):
    """Takes (c3, c4, c5) through two joint upsampling units: c4 with c3, then c5 with that."""

    width: int
    common: Common

    @nn.compact
    def __call__(
        self,
        features: Sequence[Float[Array, "b _ _ _"]],
        sizes: Sequence[Size | None] = (None, None, None),
        *,
        train: bool = False,
    ) -> Float[Array, "b h w k"]:
        c3, c4, c5 = features
        fine, middle, coarse = sizes
        x = JointUpsampling(self.width // 2, self.common, (1, 2, 4), name="jum_1")(
            c4, c3, middle, fine, train=train
        )
        return JointUpsampling(self.width, self.common, (2, 4, 8), name="jum_2")(
            c5, x, coarse, fine, train=train
        )


class JointUpsampling(nn.Module):
    """Upsamples `low` to the size of `high`; returns it and dilated branches over both.

    The branches are normalised by groups, the two entries by batch, as in the official code.
    """

    width: int
    common: Common
    dilations: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        low: Float[Array, "b h w c"],
        high: Float[Array, "b h2 w2 c2"],
        low_size: Size | None = None,
        high_size: Size | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "b h2 w2 k"]:
        low = ConvModule(self.width, self.common, 3, name="conv_l")(low, low_size, train=train)
        high = ConvModule(self.width, self.common, 3, name="conv_h")(high, high_size, train=train)
        low = _upsample(low, high, low_size, high_size, self.common)
        (joint,) = self.common.forms["barrier"](jnp.concatenate([low, high], axis=-1))
        branches = [
            SeparableConv(
                self.width, self.common, dilation, group_norm=True, name=f"dilation_layers_{i}"
            )(joint, high_size, train=train)
            for i, dilation in enumerate(self.dilations)
        ]
        return jnp.concatenate([low, *branches], axis=-1)


def _upsample(x, like, size, like_size, common):
    return common.forms["resize"](
        x,
        like.shape[1:3],
        align_corners=common.align_corners,
        in_size=size,
        out_size=like_size,
    )
