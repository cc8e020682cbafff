"""One pass of a segmentor over a padded batch, and the interface that `windowed` needs."""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num

from fastfcn_jax import models
from fastfcn_jax.inference import protocols

Variables = dict[str, Any]


def network(
    model: nn.Module,
    variables: Variables,
    images: Num[Array, "b h w c"],
    size: Int[Array, "b 2"] | None,
    scaling: models.Scaling = models.IMAGENET,
) -> Float[Array, "b h8 w8 k"]:
    """Logits at 1/8 resolution of padded images; `size` is (height, width) before padding."""
    outputs: Any = model.apply(variables, models.normalize(images, size, scaling), size=size)
    return outputs.logits.astype(jnp.float32)


@runtime_checkable
class Network(Protocol):
    """The part of a predictor that `windowed` uses."""

    protocol: protocols.Protocol
    align_corners: bool
    batch_size: int
    threshold: float | None

    def run(self, images: Any, size: Any | None) -> Float[Array, "b h8 w8 k"]:
        """Logits at 1/8 resolution of padded images."""
        ...
