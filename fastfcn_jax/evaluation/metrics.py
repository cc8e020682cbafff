"""Confusion matrices and the scores computed from them (mIoU, mAcc, aAcc)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

IGNORE_LABEL = 255
_CHUNK = 1 << 16  # pixels; counted in lengths of this times a power of two: few programs


@functools.partial(jax.jit, static_argnames="num_classes")
def _count(
    label: UInt8[Array, " n"], prediction: UInt8[Array, " n"], num_classes: int
) -> Int[Array, "k k"]:
    label = label.astype(jnp.int32)
    cell = label * num_classes + prediction.astype(jnp.int32)
    cell = jnp.where(label < num_classes, cell, num_classes * num_classes)
    counts = jnp.bincount(cell, length=num_classes * num_classes + 1)[:-1]
    return counts.astype(jnp.int32).reshape(num_classes, num_classes)


def confusion_matrix(
    label: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"], num_classes: int
) -> Int[np.ndarray, "k k"]:
    """Number of pixels of one image for each (label, prediction), counted on the device.

    Pixels whose label is no class (255 = ignore) are left out. Counts are exact for images of up
    to 2^31 pixels; they are returned as int64, so that sums over a data set are exact too.
    """
    length = _CHUNK
    while length < label.size:
        length *= 2
    padded = np.full(length, IGNORE_LABEL, np.uint8)
    padded[: label.size] = label.ravel()
    predicted = np.zeros(length, np.uint8)
    predicted[: prediction.size] = prediction.ravel()
    return np.asarray(_count(padded, predicted, num_classes)).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Percentages; the IoU of a class is NaN if it occurs in neither labels nor predictions.

    All are NaN where no pixel is labelled: that is no score, not a bad one.
    """

    miou: float
    macc: float
    aacc: float
    iou: Float[np.ndarray, " k"]
    acc: Float[np.ndarray, " k"]

    def __str__(self) -> str:
        means = (("mIoU", self.miou), ("mAcc", self.macc), ("aAcc", self.aacc))
        return "  ".join(f"{name} {written(value)}" for name, value in means)


def scores(matrix: Int[np.ndarray, "k k"], *, absent_counts_zero: bool = False) -> Scores:
    """IoU and accuracy per class and their means, from a confusion matrix (rows label).

    Args:
      absent_counts_zero: a class that occurs in neither labels nor predictions counts as 0
        (official FastFCN evaluator), instead of being left out of the means (mmsegmentation).
    """
    matrix = matrix.astype(np.float64)  # exact below 2^53
    intersection = np.diag(matrix)
    label = matrix.sum(axis=1)
    union = label + matrix.sum(axis=0) - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = 100 * intersection / union
        acc = 100 * intersection / label
        aacc = 100 * intersection.sum() / label.sum()
    if absent_counts_zero and label.any():
        iou, acc = np.nan_to_num(iou), np.nan_to_num(acc)
    return Scores(_nanmean(iou), _nanmean(acc), float(aacc), iou, acc)


def written(value: float) -> str:
    """A percentage with two decimals; "-" where there is none."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def _nanmean(values: Float[np.ndarray, " k"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
