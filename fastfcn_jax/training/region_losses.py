"""Losses beside the cross entropy: Dice, Lovász, Tversky, focal, and at the borders of objects.

`dice`, `tversky`, `focal` and `lovasz` are those of mmsegmentation 1.2.2 (`DiceLoss()`,
`TverskyLoss()`, `FocalLoss()`, `LovaszLoss(reduction="none")`), value and gradient. Each returns
this replica's share: summed over `axis_name`, the shares are the loss of the whole batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from fastfcn_jax.data.source import IGNORE_LABEL
from fastfcn_jax.models.segmentor import two_classes

EPSILON = 1e-3  # of both Dice losses: 0 / 0 for what is absent
SMOOTH = 1.0  # of the Tversky loss, in pixels


class Terms(NamedTuple):
    """The terms of the main head's loss with their weights, and their settings.

    label_smoothing: of every cross entropy: this share of the aim is spread over all classes.
    focal_gamma: exponent that makes easy pixels count less; focal_alpha: weight of "is this class",
      1 - focal_alpha that of "is not".
    tversky_alpha: weight of false positives, 1 - tversky_alpha that of false negatives.
    boundary_width: distance in pixels from a border between two classes.
    """

    weights: tuple[tuple[str, float], ...] = (("cross_entropy", 1.0),)
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    focal_alpha: float = 0.5
    tversky_alpha: float = 0.3
    boundary_width: int = 3


def shares(
    logits: Float[Array, "b h w k"],
    labels: Integer[Array, "b h w"],
    cross_entropy: Float[Array, "b h w"],
    terms: Terms,
    *,
    pixels: Float[Array, ""],
    images: Any,
    class_weights: Sequence[float] = (),
    axis_name: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """This replica's share of each term but the cross entropy, as weighted, by its logged name.

    With accumulation, the losses of a whole batch (`class_dice`, `lovasz`, `boundary`) are the mean
    over the micro-batches. Of a one-channel model, `dice` and `focal` look at the second class
    alone, as their papers do; the others at the two classes that its sigmoid makes.

    Args:
      cross_entropy: of each pixel, 0 where ignored.
      pixels: what sums over pixels are divided by, without class weights.
      images: number of images of the update, over all replicas and micro-batches.
      class_weights: factor of each class, as in mmsegmentation; the Dice losses have none.
    """
    replicas = _psum(1, axis_name)
    batch_share = labels.shape[0] * replicas / images  # below 1 with accumulation
    own, binary = logits, logits.shape[-1] == 1
    logits = two_classes(logits) if binary else logits
    weights = jnp.asarray(class_weights or (1.0,) * logits.shape[-1], jnp.float32)
    at_label = _one_hot(labels, logits.shape[-1])
    own_label = at_label[..., 1:] if binary else at_label
    found = {}
    for name, factor in terms.weights:
        if name == "dice":
            share = dice(own, own_label).sum() / images
        elif name == "tversky":
            alpha = terms.tversky_alpha
            share = tversky(logits, labels, at_label, weights, alpha).sum() / images
        elif name == "focal":
            by_class = (at_label * weights).sum(-1, keepdims=True) if binary else weights
            each = focal(own, labels, own_label, by_class, terms)
            share = each.sum((1, 2)).sum() / pixels
        elif name == "class_dice":
            whole = class_dice(logits, labels, at_label, axis_name)
            share = whole * batch_share / replicas
        elif name == "lovasz":
            share = lovasz(logits, labels, weights, axis_name) * batch_share
        elif name == "boundary":
            near = near_boundary(labels, terms.boundary_width)
            counted = jnp.where(near, (at_label * weights).sum(-1), 0.0)
            total = _psum(counted.sum(), axis_name)
            mean = (counted * cross_entropy).sum() / jnp.where(total > 0.0, total, 1.0)
            share = mean * batch_share
        else:
            continue
        found[f"loss_{name}"] = factor * share
    return found


def dice(logits: Float[Array, "b h w k"], at_label: Float[Array, "b h w k"]) -> Float[Array, " b"]:
    """1 - 2 Σ p y / (Σ p² + Σ y²) of each image, over all its pixels and classes; p by sigmoid.

    V-Net's Dice loss (arXiv 1606.04797). An ignored pixel is aimed at no class, as there.
    """
    p = jax.nn.sigmoid(logits)
    overlap = (p * at_label).sum((1, 2, 3))
    both = (p * p).sum((1, 2, 3)) + EPSILON + at_label.sum((1, 2, 3)) + EPSILON
    return 1.0 - 2.0 * overlap / both


def tversky(
    logits: Float[Array, "b h w k"],
    labels: Integer[Array, "b h w"],
    at_label: Float[Array, "b h w k"],
    weights: Float[Array, " k"],
    alpha: float,
) -> Float[Array, " b"]:
    """Mean over the classes of 1 - TP / (TP + α FP + (1 - α) FN) in each image (1706.05721)."""
    p = jax.nn.softmax(logits)
    valid = (labels != IGNORE_LABEL).astype(jnp.float32)[..., None]
    right = (p * at_label).sum((1, 2))
    false = (p * (1.0 - at_label) * valid).sum((1, 2))
    missed = ((1.0 - p) * at_label).sum((1, 2))
    found = (right + SMOOTH) / (right + alpha * false + (1.0 - alpha) * missed + SMOOTH)
    return ((1.0 - found) * weights).mean(-1)


def focal(
    logits: Float[Array, "b h w k"],
    labels: Integer[Array, "b h w"],
    at_label: Float[Array, "b h w k"],
    weights: Float[Array, "*b k"],
    terms: Terms,
) -> Float[Array, "b h w"]:
    """Focal loss of each pixel, the mean over k questions "is it this class"; arXiv 1708.02002."""
    p, alpha = jax.nn.sigmoid(logits), terms.focal_alpha
    off = (1.0 - p) * at_label + p * (1.0 - at_label)
    balance = alpha * at_label + (1.0 - alpha) * (1.0 - at_label)
    entropy = jnp.maximum(logits, 0.0) - logits * at_label + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    loss = (entropy * balance * off**terms.focal_gamma * weights).mean(-1)
    return jnp.where(labels != IGNORE_LABEL, loss, 0.0)


def class_dice(
    logits: Float[Array, "b h w k"],
    labels: Integer[Array, "b h w"],
    at_label: Float[Array, "b h w k"],
    axis_name: str | None,
) -> Float[Array, ""]:
    """1 - Dice of each class over the valid pixels of the whole batch, mean over those labelled.

    Every class counts once, however few pixels it has; the sums are those of all replicas.
    """
    p = jax.nn.softmax(logits)
    valid = (labels != IGNORE_LABEL).astype(jnp.float32)[..., None]
    sums = jnp.stack([p * at_label, p * valid, at_label]).sum((1, 2, 3))
    overlap, predicted, labelled = _psum(sums, axis_name)
    loss = 1.0 - (2.0 * overlap + EPSILON) / (predicted + labelled + EPSILON)
    present = labelled > 0.0
    return jnp.where(present, loss, 0.0).sum() / jnp.maximum(present.sum(dtype=jnp.float32), 1.0)


def lovasz(
    logits: Float[Array, "b h w k"],
    labels: Integer[Array, "b h w"],
    weights: Float[Array, " k"],
    axis_name: str | None,
) -> Float[Array, ""]:
    """Share of the Lovász-softmax loss (arXiv 1705.08790): IoU, extended to probabilities.

    Over the batch of all replicas, mean over the classes that it has labels of.

    It is linear in the errors while their order stays, so its gradient is the factors themselves;
    only they need the pixels of all replicas in order.
    """
    p = jnp.moveaxis(jax.nn.softmax(logits), -1, 0)
    valid = labels != IGNORE_LABEL
    classes = jnp.arange(len(p), dtype=jnp.int32)
    here = labels.astype(jnp.int32) == classes[:, None, None, None]
    errors = jnp.where(valid, jnp.abs(here.astype(jnp.float32) - p), 0.0)

    def factors(errors_and_here):
        errors, here = errors_and_here
        return _lovasz_factors(errors, here, valid, axis_name)

    steepness, present = jax.lax.map(factors, (jax.lax.stop_gradient(errors), here))
    loss = (errors * steepness).sum((1, 2, 3)) * weights
    return loss.sum() / jnp.maximum(present.sum(), 1.0)


def _lovasz_factors(
    errors: Float[Array, "b h w"],
    here: Bool[Array, "b h w"],
    valid: Bool[Array, "b h w"],
    axis_name: str | None,
) -> tuple[Float[Array, "b h w"], Float[Array, ""]]:
    """By how much the Jaccard loss of one class grows at each pixel, largest error first.

    All 0 if the class is nowhere labelled; the second value is then 0, else 1.
    """
    key = jnp.where(valid, -errors, 1.0).reshape(-1)  # ignored pixels come last, and add nothing
    inside = here.astype(jnp.int32).reshape(-1)
    local = key.size
    if axis_name is not None:
        key, inside = jax.lax.all_gather((key, inside), axis_name, tiled=True)
    place = jnp.arange(key.size, dtype=jnp.int32)
    _, inside, index = jax.lax.sort((key, inside, place), num_keys=1)
    so_far = jnp.cumsum(inside)
    total = so_far[-1]
    overlap = (total - so_far).astype(jnp.float32)
    union = (total + place + 1 - so_far).astype(jnp.float32)
    # 1 - overlap / union minus its predecessor, which would cancel in float32 for many pixels.
    growth = jnp.where(inside == 1, 1.0 / union, overlap / (union * jnp.maximum(union - 1.0, 1.0)))
    present = (total > 0).astype(jnp.float32)
    growth = jnp.zeros(key.size).at[index].set(growth * present, unique_indices=True)
    if axis_name is not None:
        start = jax.lax.axis_index(axis_name) * local
        growth = jax.lax.dynamic_slice_in_dim(growth, start, local)
    return growth.reshape(errors.shape), present


def near_boundary(labels: Integer[Array, "b h w"], width: int) -> Bool[Array, "b h w"]:
    """True for valid pixels with another class within `width` pixels, diagonally too."""
    valid = labels != IGNORE_LABEL
    classes = labels.astype(jnp.int32)
    highest = _window(jnp.where(valid, classes, -1), -1, jax.lax.max, width)
    lowest = _window(jnp.where(valid, classes, IGNORE_LABEL), IGNORE_LABEL, jax.lax.min, width)
    return valid & (highest != lowest)


def _window(x, outside: int, of, width: int):
    """The highest or lowest value of a square around each pixel, first by column, then by row."""
    for window in ((1, 2 * width + 1, 1), (1, 1, 2 * width + 1)):
        x = jax.lax.reduce_window(x, jnp.int32(outside), of, window, (1, 1, 1), "SAME")
    return x


def _one_hot(labels: Integer[Array, "b h w"], classes: int) -> Float[Array, "b h w {classes}"]:
    """1.0 at the class of each pixel; 0.0 everywhere where it is ignored."""
    of = jnp.arange(classes, dtype=jnp.int32)
    return (labels.astype(jnp.int32)[..., None] == of).astype(jnp.float32)


def _psum(x, axis_name: str | None):
    return x if axis_name is None else jax.lax.psum(x, axis_name)
