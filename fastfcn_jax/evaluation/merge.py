"""On the device: from the network's 1/8 maps to class indices at an image's own size.

Bilinear resizing is linear and separable, so the whole way from a map L at 1/8 to the scores S of
the image (two resizes, un-flipping, placing and averaging of windows) is S = Y L X' with one small
matrix for the rows and one for the columns, made on the host (`protocols.upsampling`). S is formed
by blocks of rows and reduced at once: no full-size class map is ever stored.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

BLOCK_ROWS = 32


def _scores(
    logits: Sequence[Float[Array, "_ _ k"]],
    rows: Sequence[Float[Array, "r _"]],
    columns: Sequence[Float[Array, "w _"]],
    softmax: bool,
) -> Float[Array, "r w k"]:
    """Scores of some rows of one image: the mean over its maps, of logits or of probabilities."""
    total = jnp.float32(0)
    for part, y, x in zip(logits, rows, columns, strict=True):
        # 'highest': float32 products on accelerators too.
        lines = jnp.einsum("rh,hvk->rvk", y, part, precision="highest")
        scores = jnp.einsum("wv,rvk->rwk", x, lines, precision="highest")
        total = total + (jax.nn.softmax(scores) if softmax else scores)
    return total / jnp.float32(len(logits))


def blockwise(reduce, rows: Sequence[Float[Array, "o _"]]):
    """Maps `reduce` over blocks of BLOCK_ROWS output rows; `o` must be a multiple of that."""
    blocks = [y.reshape(-1, BLOCK_ROWS, y.shape[-1]) for y in rows]
    result = jax.lax.map(reduce, blocks)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), result)


def merge(
    logits: Sequence[Float[Array, "_ _ k"]],
    rows: Sequence[Float[Array, "o _"]],
    columns: Sequence[Float[Array, "w _"]],
    *,
    softmax: bool,
    confidence: bool = False,
) -> tuple[UInt8[Array, "o w"], Float[Array, "o w"] | None]:
    """Class indices of one image and, if asked for, the probability of the class chosen.

    Args:
      logits: maps at 1/8, one for each scale and flip.
      rows, columns: their upsampling matrices; `o` is a multiple of BLOCK_ROWS.
      softmax: average probabilities (multi-scale) instead of logits.
    """

    def reduce(block):
        scores = _scores(logits, block, columns, softmax)
        labels = jnp.argmax(scores, axis=-1).astype(jnp.uint8)
        if not confidence:
            return labels, None
        probabilities = scores if softmax else jax.nn.softmax(scores)
        return labels, probabilities.max(axis=-1)

    return blockwise(reduce, rows)


def merge_scores(
    logits: Sequence[Float[Array, "_ _ k"]],
    rows: Sequence[Float[Array, "o _"]],
    columns: Sequence[Float[Array, "w _"]],
    *,
    softmax: bool,
) -> Float[Array, "o w k"]:
    """The full-size scores of one image: mean logits, or mean probabilities with `softmax`."""
    return blockwise(lambda block: _scores(logits, block, columns, softmax), rows)
