"""From the network's logits at 1/8 resolution to class indices at the images' own size.

Bilinear resizing is linear and separable. So everything between the logits L and the scores S of
an image (two resizes, undoing the flip, placing and averaging windows) is S = Y L X', with a small
matrix Y for the rows and a sparse one X for the columns, which the host makes (`upsampling`). S is
computed in blocks of rows, each of which is reduced to class indices at once, so S as a whole is
never in memory. The windowed protocols, whose number of windows varies, keep a running sum instead.
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
    """Class indices and, if requested, the probabilities of these classes."""

    labels: UInt8[Array, "b o w"]
    confidence: Float[Array, "b o w"] | None


def upsample(
    logits: Float[Array, "b h v k"], y: Float[Array, "b r h"], x: Taps
) -> Float[Array, "b r w k"]:
    """Y L X' for every class, with sparse X."""
    # "highest": full float32 on accelerators too.
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
    """The mean of the upsampled logits, or of their probabilities, over the maps."""
    total = jnp.float32(0)
    for logits, y, x in zip(maps, rows, columns, strict=True):
        scores = upsample(logits, y, x)
        total = total + (jax.nn.softmax(scores) if softmax else scores)
    return total / jnp.float32(len(maps))


def choose(
    scores: Float[Array, "*b k"],
    *,
    probabilities: bool,
    confidence: bool,
    threshold: float | None = None,
) -> tuple[UInt8[Array, "*b"], Float[Array, "*b"] | None]:
    """The class with the largest score and, if requested, its probability.

    threshold: of a one-channel model: the second of two classes if its probability is above it.
    """
    if threshold is not None:
        odds = scores[..., 1] if probabilities else jax.nn.sigmoid(scores[..., 1] - scores[..., 0])
        second = odds > threshold
        sure = jnp.where(second, odds, 1.0 - odds) if confidence else None
        return second.astype(jnp.uint8), sure
    labels = jnp.argmax(scores, axis=-1).astype(jnp.uint8)
    if not confidence:
        return labels, None
    odds = scores if probabilities else jax.nn.softmax(scores)
    return labels, odds.max(axis=-1)


def blockwise(reduce: Callable, rows: Rows):
    """Applies `reduce` to blocks of BLOCK_ROWS output rows, of which `o` must be a multiple."""
    blocks = [jnp.moveaxis(_split(y), 1, 0) for y in rows]
    result = jax.lax.map(reduce, blocks)
    return jax.tree.map(lambda a: _join(jnp.moveaxis(a, 0, 1)), result)


def _split(a: Array) -> Array:
    return a.reshape(a.shape[0], -1, BLOCK_ROWS, *a.shape[2:])


def _join(a: Array) -> Array:
    return a.reshape(a.shape[0], -1, *a.shape[3:])


def merge(
    maps: Maps,
    rows: Rows,
    columns: Columns,
    *,
    softmax: bool,
    confidence: bool = False,
    threshold: float | None = None,
) -> Labels:
    """Class indices of b images from their logits, one array for each scale and flip.

    Args:
      maps: logits at 1/8 resolution.
      rows, columns: their upsampling weights; `o` is a multiple of BLOCK_ROWS.
      softmax: average probabilities (multi-scale) instead of logits.
      confidence: also return the probabilities of the predicted classes.
      threshold: see `choose`.
    """

    def reduce(block):
        scores = scores_of(maps, block, columns, softmax=softmax)
        return choose(scores, probabilities=softmax, confidence=confidence, threshold=threshold)

    return Labels(*blockwise(reduce, rows))


def merge_scores(
    maps: Maps, rows: Rows, columns: Columns, *, softmax: bool
) -> Float[Array, "b o w k"]:
    """Scores at the images' size: mean logits, or mean probabilities with `softmax`."""
    return blockwise(lambda block: scores_of(maps, block, columns, softmax=softmax), rows)


def add_windows(
    total: Float[Array, "o w k"],
    logits: Float[Array, "n h v k"],
    rows: Float[Array, "n o h"],
    columns: Taps,
) -> Float[Array, "o w k"]:
    """Adds the logits of n windows of one image to its running sum."""

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
