"""The whole network: backbone, neck, head and auxiliary head; and its input normalisation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from fastfcn_jax.models.padding import Size, at_stride, blank_outside

MEAN = (123.675, 116.28, 103.53)  # RGB, of ImageNet, as in both references
STD = (58.395, 57.12, 57.375)


class Scaling(NamedTuple):
    """Mean and deviation of each channel of the images, by which they are normalised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Scaling(MEAN, STD)


class Outputs(NamedTuple):
    """logits at 1/8 of the image; the auxiliary head's at c4's stride; the Enc head's se."""

    logits: Float[Array, "b h w k"]
    auxiliary: Float[Array, "b h2 w2 k"] | None
    se: Float[Array, "b n"] | None  # n: k, or 2 in a one-channel model


class Segmentor(nn.Module):
    """Maps normalised images to class scores.

    neck: takes (c3, c4, c5); None hands c5 to the head (the dilated models).
    auxiliary_head: takes c4; it runs in training, when initialising, or on request.
    lateral: names of the maps that the head takes as well, e.g. ("c3", "c4").
    threshold: of a one-channel model, whose logit is that of the second of two classes: the
      probability above which a pixel is of it. In evaluation such a model answers as one of two
      classes, of which the first has the logit 0: softmax is then its sigmoid. None: any other.
    """

    backbone: nn.Module
    neck: nn.Module | None
    decode_head: nn.Module
    auxiliary_head: nn.Module | None
    lateral: tuple[str, ...] = ()
    threshold: float | None = None

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        size: Size | None = None,
        auxiliary: bool = False,
    ) -> Outputs:
        """Returns float32 scores of `images` (see `normalize`).

        size: true (height, width) of each image in a padded batch. Each image then gets the
            logits that it has alone, up to rounding, in the first ceil(size / 8) rows and
            columns; the rest is undefined. Evaluation only: training treats padding as image.
        auxiliary: also run the auxiliary head where it would be left out.
        Raises ValueError for `size` together with `train`.
        """
        if train and size is not None:
            raise ValueError("size is for evaluation: BatchNorm would count the padding")
        everything = self.backbone(images, size, train=train)
        strides = self.backbone.feature_strides
        every_size = [at_stride(size, stride) for stride in strides]
        (_, *pyramid), (_, *sizes) = everything, every_size
        if self.neck is None:
            x, x_size = pyramid[-1], sizes[-1]
        else:
            x, x_size = self.neck(pyramid, sizes, train=train), sizes[0]
        if self.lateral:
            fine, fine_sizes = (self.lateral_of(maps) for maps in (everything, every_size))
            logits, se = self.decode_head(x, x_size, fine, fine_sizes, train=train)
        else:
            logits, se = self.decode_head(x, x_size, train=train)
        scores = None
        if self.auxiliary_head is not None and (train or auxiliary or self.is_initializing()):
            scores, _ = self.auxiliary_head(pyramid[1], sizes[1], train=train)
        if self.threshold is not None and not train:
            logits, scores = two_classes(logits), None if scores is None else two_classes(scores)
        return Outputs(logits, scores, se)

    def lateral_of(self, pyramid: Sequence[Any]) -> list[Any]:
        """What belongs to the maps named by `lateral`, out of one item for each of c2 to c5."""
        return [pyramid[("c2", "c3", "c4", "c5").index(name)] for name in self.lateral]


def two_classes(logits: Float[Array, "*b 1"]) -> Float[Array, "*b 2"]:
    """The logits of two classes of which the second has this sigmoid."""
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


def normalize(
    images: Num[Array, "b h w c"], size: Size | None = None, scaling: Scaling = IMAGENET
) -> Float[Array, "b h w c"]:
    """Scales images channel by channel; what lies outside `size` becomes 0.

    By default by ImageNet's mean and deviation of RGB from 0 to 255. mmseg pads after normalising,
    so its padding is the mean colour: 0 here. With other scalings NaN and infinity, which stand for
    missing values in floating-point images, become 0 as well.
    """
    mean, std = (jnp.array(values, jnp.float32) for values in scaling)
    scaled = (images.astype(jnp.float32) - mean) / std
    if scaling != IMAGENET and jnp.issubdtype(images.dtype, jnp.floating):
        scaled = jnp.where(jnp.isfinite(scaled), scaled, 0.0)
    return blank_outside(scaled, size)
