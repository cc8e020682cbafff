"""The cross entropy of one-channel models: one logit a pixel, of the second of two classes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from fastfcn_jax.data.source import IGNORE_LABEL


def pixel_cross_entropy(
    logits: Float[Array, "b h w 1"], labels: Integer[Array, "b h w"], threshold: float
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Binary cross entropy of each pixel (0 where ignored) and 1.0 where its class is predicted.

    That of mmsegmentation's `CrossEntropyLoss(use_sigmoid=True)`. The second class is predicted
    where its probability is above `threshold`.
    """
    x = logits[..., 0]
    second = labels == 1
    # log1p of a number below 1: exact for large logits, where log(sigmoid) would be infinite.
    loss = jnp.maximum(x, 0.0) - jnp.where(second, x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))
    valid = labels != IGNORE_LABEL
    predicted = jax.nn.sigmoid(jax.lax.stop_gradient(x)) > threshold
    correct = valid & (predicted == second)
    return jnp.where(valid, loss, 0.0), correct.astype(jnp.float32)
