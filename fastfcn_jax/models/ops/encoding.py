"""The Encoding layer by the expanded square, without the (pixels, codes, channels) tensor.

Zhang et al., https://arxiv.org/abs/1803.08904. At 1024x2048 that tensor would take 2.1 GB in
float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fastfcn_jax.models.ops.precision import widen


def encode(
    x: Float[Array, "b n c"],
    codewords: Float[Array, "k c"],
    scale: Float[Array, " k"],
    counted: Bool[Array, "b n 1"] | None = None,
) -> Float[Array, "b k c"]:
    """Returns sum_n softmax_k(scale_k |x_n - c_k|^2) (x_n - c_k), over the counted pixels.

    `scale` is learned from U(-1, 0): no further minus sign. In float32.
    """
    x = widen(x)
    square = jnp.square(x).sum(-1, keepdims=True) + jnp.square(codewords).sum(-1)
    distance = square - 2 * jnp.einsum("bnc,kc->bnk", x, codewords)
    share = jax.nn.softmax(distance * scale, axis=-1)
    if counted is not None:
        share = share * counted.astype(share.dtype)
    return jnp.einsum("bnk,bnc->bkc", share, x) - share.sum(1)[..., None] * codewords
