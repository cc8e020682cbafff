"""On the device: from the network's 1/8 maps to class indices at the images' own size.

Bilinear resizing is linear and separable, so the whole way from a map L at 1/8 to the scores S of
an image (two resizes, un-flipping, placing and averaging of windows) is S = Y L X' with one small
matrix for the rows and a sparse one for the columns, made on the host (`upsampling`). S is formed
by blocks of rows and reduced at once; only the windowed protocols, whose number of maps varies,
keep a running sum of one image's size.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from fastfcn_jax.inference.upsampling import Taps

BLOCK_ROWS = 32

Maps = Sequence[Float[Array, "b _ _ k"]]
Rows = Sequence[Float[Array, "b o _"]]
Columns = Sequence[Taps]


class Labels(NamedTuple):
    """Class indices and, where asked for, the probability of the class chosen."""

    labels: UInt8[Array, "b o w"]
    confidence: Float[Array, "b o w"] | None


def upsample(
    logits: Float[Array, "b h v k"], y: Float[Array, "b r h"], x: Taps
) -> Float[Array, "b r w k"]:
    """Y L X' for every class; X is sparse."""
    # 'highest': float32 products on accelerators too.
    lines = jnp.einsum("brh,bhvk->brvk", y, logits, precision="highest")
    short = max(x.weight.shape[-1] - lines.shape[2], 0)
    lines = jnp.pad(lines, ((0, 0), (0, 0), (0, short), (0, 0)))

    def mix(lines, start, weight):
        parts = [lines[:, start + t] * weight[:, t, None] for t in range(weight.shape[-1])]
        return sum(parts[1:], parts[0])

    return jax.vmap(mix)(lines, x.start, x.weight)


def scores_of(
    maps: Maps, rows: Rows, columns: Columns, *, softmax: bool
) -> Float[Array, "b r w k"]:
    """The mean over the maps, of logits or of probabilities."""
    total = jnp.float32(0)
    for logits, y, x in zip(maps, rows, columns, strict=True):
        scores = upsample(logits, y, x)
        total = total + (jax.nn.softmax(scores) if softmax else scores)
    return total / jnp.float32(len(maps))


def choose(
    scores: Float[Array, "*b k"], *, probabilities: bool, confidence: bool
) -> tuple[UInt8[Array, "*b"], Float[Array, "*b"] | None]:
    """The largest score's class and, if asked for, its probability."""
    labels = jnp.argmax(scores, axis=-1).astype(jnp.uint8)
    if not confidence:
        return labels, None
    odds = scores if probabilities else jax.nn.softmax(scores)
    return labels, odds.max(axis=-1)


def blockwise(reduce: Callable, rows: Rows):
    """Maps `reduce` over blocks of BLOCK_ROWS output rows; `o` must be a multiple of that."""
    blocks = [jnp.moveaxis(_split(y), 1, 0) for y in rows]
    result = jax.lax.map(reduce, blocks)
    return jax.tree.map(lambda a: _join(jnp.moveaxis(a, 0, 1)), result)


def _split(a: Array) -> Array:
    return a.reshape(a.shape[0], -1, BLOCK_ROWS, *a.shape[2:])


def _join(a: Array) -> Array:
    return a.reshape(a.shape[0], -1, *a.shape[3:])


def merge(
    maps: Maps, rows: Rows, columns: Columns, *, softmax: bool, confidence: bool = False
) -> Labels:
    """Class indices of b images from their maps, one of each scale and flip.

    Args:
      maps: logits at 1/8.
      rows, columns: their upsampling weights; `o` is a multiple of BLOCK_ROWS.
      softmax: average probabilities (multi-scale) instead of logits.
      confidence: return the chosen class's probability as well.
    """

    def reduce(block):
        scores = scores_of(maps, block, columns, softmax=softmax)
        return choose(scores, probabilities=softmax, confidence=confidence)

    return Labels(*blockwise(reduce, rows))


def merge_scores(
    maps: Maps, rows: Rows, columns: Columns, *, softmax: bool
) -> Float[Array, "b o w k"]:
    """The full-size scores: mean logits, or mean probabilities with `softmax`."""
    return blockwise(lambda block: scores_of(maps, block, columns, softmax=softmax), rows)


def add_windows(
    total: Float[Array, "o w k"],
    logits: Float[Array, "n h v k"],
    rows: Float[Array, "n o h"],
    columns: Taps,
) -> Float[Array, "o w k"]:
    """Adds the maps of n windows of one image to its running scores."""

    def block(arguments):
        part, y = arguments
        for i in range(logits.shape[0]):
            one = slice(i, i + 1)
            x = Taps(columns.start[one], columns.weight[one])
            part = part + upsample(logits[one], y[one], x)[0]
        return part

    parts = total.reshape(-1, BLOCK_ROWS, *total.shape[1:])
    summed = jax.lax.map(block, (parts, jnp.moveaxis(_split(rows), 1, 0)))
    return summed.reshape(total.shape)
