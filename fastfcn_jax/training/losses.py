"""The training loss of both reference lineages, as shares that sum over the shards of a batch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from fastfcn_jax.data.source import IGNORE_LABEL
from fastfcn_jax.models.ops.forms import FAST, Forms
from fastfcn_jax.models.ops.precision import widen
from fastfcn_jax.models.segmentor import two_classes
from fastfcn_jax.training import one_channel, region_losses
from fastfcn_jax.training.region_losses import Terms

INT32_MAX = 2**31 - 1


class Denominators(NamedTuple):
    """What sums are divided by: counted over the whole update, so that shares may be added.

    pixels: what the summed cross entropy is divided by; with "valid_pixels_per_micro_batch" and
      accumulation one number for each micro-batch, "a" (see `of_micro_batch`).
    unweighted: the same without class weights.
    valid: pixels of the update that are not ignored (for the accuracy).
    images: images of the update (for the SE loss).
    """

    pixels: Float[Array, "*a"]
    unweighted: Float[Array, "*a"]
    valid: Float[Array, ""]
    images: int


def denominators(
    labels: Integer[Array, "*b h w"],
    *,
    normalization: str = "all_pixels",
    class_weights: Sequence[float] = (),
    axis_name: str | None = None,
) -> Denominators:
    """Counts the pixels that the update's losses are divided by.

    Args:
      labels: all labels this replica holds for the update, "b h w" or, with
        accumulation, "a b h w".
      normalization: "all_pixels" counts ignored pixels too (mmseg's default,
        `avg_non_ignore=False`); "valid_pixels" is PyTorch's mean over the global
        batch; "valid_pixels_per_shard" is the official trainer's: every shard
        divides by its own valid pixels, then the shards are averaged;
        "valid_pixels_per_micro_batch" is mmengine's accumulation with
        `avg_non_ignore=True`: the mean of the means of every shard's micro-batches.
      class_weights: as in PyTorch, a valid pixel counts with its class's weight.
        An ignored pixel, where it counts, counts as one. The single weight of a
        one-channel model does not change the count (PyTorch's `pos_weight`).
      axis_name: mapped axis that holds the other shards of the batch.
    """
    valid = (labels != IGNORE_LABEL).astype(jnp.float32)
    replicas = _psum(1, axis_name)

    def total(counted):
        if normalization == "all_pixels":
            counted = counted + (1.0 - valid)
        pixels = counted.sum((-2, -1))  # image by image: exact beyond 2^24 pixels
        if normalization == "valid_pixels_per_micro_batch":
            micro_batches = math.prod(labels.shape[:-3])
            pixels = pixels.sum(-1) * (micro_batches * replicas)
        elif normalization == "valid_pixels_per_shard":
            pixels = pixels.sum() * replicas
        else:
            pixels = _psum(pixels.sum(), axis_name)
        # A batch without a single valid pixel has loss 0; PyTorch's mean would be NaN.
        return jnp.where(pixels > 0.0, pixels, 1.0)

    unweighted = total(valid)
    return Denominators(
        pixels=total(valid * _per_pixel(class_weights, labels))
        if len(class_weights) > 1
        else unweighted,
        unweighted=unweighted,
        valid=jnp.maximum(_psum(valid.sum(), axis_name), 1.0),
        images=math.prod(labels.shape[:-2]) * replicas,
    )


def of_micro_batch(over: Denominators, index) -> Denominators:
    """The denominators of one micro-batch of the update."""
    own, unweighted = (x[index] if x.ndim else x for x in (over.pixels, over.unweighted))
    return over._replace(pixels=own, unweighted=unweighted)


def total_loss(
    outputs,
    labels: Integer[Array, "b h w"],
    num_classes: int,
    *,
    over: Denominators | None = None,
    terms: Terms = Terms(),  # noqa: B008  (a tuple, and never changed)
    auxiliary_weight: float = 0.4,
    se_weight: float = 0.2,
    class_weights: Sequence[float] = (),
    ohem_threshold: float = 0.0,
    ohem_min_kept: int = 100_000,
    align_corners: bool = False,
    threshold: float = 0.3,
    axis_name: str | None = None,
    forms: Forms = FAST,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighted sum of the main, auxiliary and SE losses (reference-equal; see `denominators`).

    Args:
      outputs: the segmentor's `Outputs`: logits and auxiliary of any resolution,
        enlarged here to the labels', and the SE logits "b k" or None. One channel for
        two classes is the second one's (a one-channel model).
      labels: class indices; 255 is ignored.
      over: `denominators` of the update; by default those of `labels` alone.
      terms: of the main head's loss; the auxiliary head's is a cross entropy.
      class_weights: one for each class; of a one-channel model one, of the second class.
      align_corners: of the enlargement; the official lineage's is True.
      threshold: of a one-channel model, for the accuracy.
      axis_name: mapped axis over which OHEM chooses its pixels.
      forms: in which form the operations are computed.

    Returns:
      This replica's share of the loss and of its parts (`loss_decode`, which is the
      cross entropy, `loss_dice` and so on, `loss_auxiliary`, `loss_se`, each as
      weighted, and `accuracy`, percent of valid pixels): summed over `axis_name`
      they are the batch's.
    """
    over = over or denominators(labels, class_weights=class_weights)
    smoothing = terms.label_smoothing
    binary = num_classes == 2 and outputs.logits.shape[-1] == 1
    if binary and class_weights:
        class_weights = (1.0, *class_weights)

    def enlarge(logits):
        return forms["resize"](widen(logits), labels.shape[1:], align_corners=align_corners)

    def each_pixel(logits):
        if binary:
            return one_channel.pixel_cross_entropy(logits, labels, threshold)
        return pixel_cross_entropy(logits, labels)

    logits = enlarge(outputs.logits)
    loss, correct = each_pixel(logits)
    kept = None
    if ohem_threshold > 0:
        kept = hard_pixels(
            jnp.exp(-loss), labels, ohem_threshold, ohem_min_kept, axis_name=axis_name
        )
    parts = {}
    if factor := dict(terms.weights).get("cross_entropy", 0.0):
        share = _mean_cross_entropy(logits, loss, labels, kept, over, class_weights, smoothing)
        parts["loss_decode"] = share if factor == 1.0 else factor * share
    if [name for name, _ in terms.weights] != ["cross_entropy"]:
        parts |= region_losses.shares(
            logits,
            labels,
            loss,
            terms,
            pixels=over.unweighted,
            images=over.images,
            class_weights=class_weights,
            axis_name=axis_name,
        )
    if outputs.auxiliary is not None and auxiliary_weight > 0:
        # In the backward pass a GPU then has the gradient of `auxiliary` before it begins with the
        # main loss: both at once, at the labels' size, are 629 MB more for four images of ADE20K.
        first = next(iter(parts))
        parts[first], auxiliary = forms["barrier"](parts[first], outputs.auxiliary)
        logits = enlarge(auxiliary)
        loss, _ = each_pixel(logits)
        share = _mean_cross_entropy(logits, loss, labels, None, over, class_weights, smoothing)
        parts["loss_auxiliary"] = auxiliary_weight * share
    if outputs.se is not None and se_weight > 0:
        presence = class_presence(labels, num_classes)
        se = binary_cross_entropy(widen(outputs.se), presence)
        parts["loss_se"] = se_weight * se.sum() / (over.images * num_classes)
    total: Any = sum(parts.values())
    parts["accuracy"] = 100.0 * correct.sum() / over.valid
    return total, parts


def pixel_cross_entropy(
    logits: Float[Array, "b h w k"], labels: Integer[Array, "b h w"]
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Cross entropy of each pixel (0 where ignored) and 1.0 where its class scores highest.

    The label's logit is picked by comparison instead of a gather: its gradient
    is then a fusion, not a scatter into a full-resolution tensor.
    """
    peak = jax.lax.stop_gradient(logits.max(-1))
    log_sum = peak + jnp.log(jnp.exp(logits - peak[..., None]).sum(-1))
    labels = labels.astype(jnp.int32)
    at_label = labels[..., None] == jnp.arange(logits.shape[-1], dtype=jnp.int32)
    score = jnp.where(at_label, logits, 0.0).sum(-1)
    valid = labels != IGNORE_LABEL
    correct = valid & (jax.lax.stop_gradient(score) >= peak)
    return jnp.where(valid, log_sum - score, 0.0), correct.astype(jnp.float32)


def class_presence(
    labels: Integer[Array, "b h w"], num_classes: int
) -> Float[Array, "b {num_classes}"]:
    """1.0 for every class that occurs in an image's label: the SE branch's aim."""
    classes = jnp.arange(num_classes, dtype=jnp.int32)
    present = (labels.astype(jnp.int32)[..., None] == classes).any((1, 2))
    return present.astype(jnp.float32)


def binary_cross_entropy(
    logits: Float[Array, "b k"], presence: Float[Array, "b k"]
) -> Float[Array, "b k"]:
    """Binary cross entropy with logits, stable for large ones."""
    return jnp.maximum(logits, 0.0) - logits * presence + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def hard_pixels(
    confidence: Float[Array, "b h w"],
    labels: Integer[Array, "b h w"],
    threshold: float,
    min_kept: int,
    *,
    axis_name: str | None = None,
):
    """True for the pixels that online hard example mining keeps (mmseg's OHEMPixelSampler).

    Kept are valid pixels whose predicted probability of the right class lies
    below `threshold`, or below the (min_kept * images + 1)-th smallest of the
    batch where that is higher.
    """
    confidence = jax.lax.stop_gradient(confidence)
    valid = labels != IGNORE_LABEL
    count = _psum(valid.sum(dtype=jnp.int32), axis_name)
    images = labels.shape[0] * _psum(1, axis_name)
    rank = jnp.minimum(min(min_kept * images, INT32_MAX), count - 1)
    kth = _kth_smallest(confidence, valid, rank, axis_name)
    return valid & (confidence < jnp.maximum(kth, threshold))


def _kth_smallest(values, where, rank, axis_name) -> Float[Array, ""]:
    """The element of 0-based `rank` among the values in [0, 2) over all shards, without sorting.

    Non-negative floats order as their bit patterns do, so bisecting those is exact.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)

    def bisect(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        below = _psum((where & (bits <= middle)).sum(dtype=jnp.int32), axis_name)
        enough = below > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    start = (jnp.int32(0), jnp.int32(0x3FFFFFFF))  # 0.0 and just below 2.0
    low, _ = jax.lax.fori_loop(0, 31, bisect, start)
    return jax.lax.bitcast_convert_type(low, jnp.float32)


def _per_pixel(class_weights: Sequence[float], labels: Integer[Array, "*b h w"]):
    table = jnp.asarray(class_weights, jnp.float32)
    return table[jnp.minimum(labels.astype(jnp.int32), table.size - 1)]


def _mean_cross_entropy(
    logits: Float[Array, "b h w k"],
    loss: Float[Array, "b h w"],
    labels: Integer[Array, "b h w"],
    kept: Bool[Array, "b h w"] | None,
    over: Denominators,
    class_weights: Sequence[float],
    smoothing: float,
) -> Float[Array, ""]:
    """Share of the mean of the pixels' cross entropies, smoothed as PyTorch does.

    Args:
      kept: the pixels that count (hard examples); None: all that are valid.
    """
    valid = labels != IGNORE_LABEL if kept is None else kept
    loss = loss if kept is None else jnp.where(kept, loss, 0.0)
    weighted = loss * _per_pixel(class_weights, labels) if class_weights else loss
    found = (weighted.sum((1, 2)) / over.pixels).sum()
    if smoothing == 0.0:
        return found
    logits = two_classes(logits) if logits.shape[-1] == 1 else logits
    each = jax.nn.logsumexp(logits, axis=-1, keepdims=True) - logits
    each = each * jnp.asarray(class_weights, jnp.float32) if class_weights else each
    even = jnp.where(valid, each.mean(-1), 0.0)
    return (1.0 - smoothing) * found + smoothing * (even.sum((1, 2)) / over.pixels).sum()


def _psum(x, axis_name: str | None):
    return x if axis_name is None else jax.lax.psum(x, axis_name)
