"""Confusion matrices and the scores computed from them; docs/evaluation.md defines each."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

IGNORE_LABEL = 255
# Names of the class that is not looked for, where there are two classes.
BACKGROUND = ("background", "bg", "back", "other", "others", "rest", "none", "negative", "nothing")
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

    acc: also called recall; precision: NaN for a class that is never predicted; f1: also Dice.
    fwiou: IoU weighted by the labelled pixels; kappa: Cohen's, at most 1.
    """

    miou: float
    macc: float
    aacc: float
    iou: Float[np.ndarray, " k"]
    acc: Float[np.ndarray, " k"]
    precision: Float[np.ndarray, " k"]
    f1: Float[np.ndarray, " k"]
    mf1: float
    mprecision: float
    fwiou: float
    kappa: float

    def __str__(self) -> str:
        means = (("mIoU", self.miou), ("mAcc", self.macc), ("aAcc", self.aacc))
        return "  ".join(f"{name} {written(value)}" for name, value in means)

    def of_class(self, k: int) -> dict[str, float]:
        """The scores of one class; NaN where undefined. Recall is Acc under its other name."""
        return {
            "IoU": float(self.iou[k]),
            "Acc": float(self.acc[k]),
            "F1": float(self.f1[k]),
            "Precision": float(self.precision[k]),
            "Recall": float(self.acc[k]),
        }


def scores(matrix: Int[np.ndarray, "k k"], *, absent_counts_zero: bool = False) -> Scores:
    """The scores of each class and their means, from a confusion matrix (rows label).

    Args:
      absent_counts_zero: a class that occurs in neither labels nor predictions counts as 0
        (official FastFCN evaluator), instead of being left out of the means (mmsegmentation).
    """
    matrix = matrix.astype(np.float64)  # exact below 2^53
    intersection = np.diag(matrix)
    label, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    union = label + predicted - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = 100 * intersection / union
        acc = 100 * intersection / label
        precision = 100 * intersection / predicted
        f1 = 200 * intersection / (label + predicted)
        share = label / label.sum()
        by_chance = (share * (predicted / label.sum())).sum()
        right = intersection.sum() / label.sum()
        aacc = 100 * intersection.sum() / label.sum()
        kappa = (right - by_chance) / (1 - by_chance)
    fwiou = (share * np.where(label > 0, iou, 0)).sum()
    if absent_counts_zero and label.any():
        iou, acc, precision, f1 = map(np.nan_to_num, (iou, acc, precision, f1))
    return Scores(
        miou=_nanmean(iou),
        macc=_nanmean(acc),
        aacc=float(aacc),
        iou=iou,
        acc=acc,
        precision=precision,
        f1=f1,
        mf1=_nanmean(f1),
        mprecision=_nanmean(precision),
        fwiou=float(fwiou),
        kappa=float(kappa),
    )


def foreground(names: Sequence[str]) -> int | None:
    """The class that is looked for where there are two: the second, unless it is the background."""
    if len(names) != 2:
        return None
    first, second = (name.lower() in BACKGROUND for name in names)
    return 0 if second and not first else 1


def written(value: float) -> str:
    """A percentage with two decimals; "-" where there is none."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def _nanmean(values: Float[np.ndarray, " k"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
