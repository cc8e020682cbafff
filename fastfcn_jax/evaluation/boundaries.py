"""Boundary IoU: how exactly the borders of each class are predicted."""

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

from fastfcn_jax.evaluation.report import frame
from fastfcn_jax.inference.prediction import Prediction

RATIO = 0.02  # width of the band inside a border, as a share of the image's diagonal
SQUARE = np.ones((3, 3), np.uint8)


class BoundaryIoU:
    """Pixels of each class within a band along its border, in labels and predictions.

    IoU of the two bands, summed over the images (Cheng et al. 2021, arXiv 2103.16562). The border
    of the image counts as a border, as there. Pixels that are ignored belong to no class.
    """

    name = "boundary"
    needs_confidence = False

    def __init__(self, class_names: Sequence[str]):
        self._names = tuple(class_names)
        self.rows: list[np.ndarray] = []

    @property
    def totals(self) -> Int[np.ndarray, "2 k"]:
        """Pixels of each class in the bands of both, and of either."""
        return functools.reduce(np.add, self.rows, np.zeros((2, len(self._names)), np.int64))

    def add(self, label: UInt8[np.ndarray, "h w"], prediction: Prediction) -> None:
        """Counts the pixels of one image."""
        valid = label < len(self._names)
        width = max(round(RATIO * float(np.hypot(*label.shape))), 1)
        row = np.zeros((2, len(self._names)), np.int64)
        present = np.union1d(label[valid], prediction.labels[valid])
        for k in present.tolist():
            bands = [inner_band(valid & (x == k), width) for x in (label, prediction.labels)]
            row[:, k] = np.count_nonzero(bands[0] & bands[1]), np.count_nonzero(bands[0] | bands[1])
        self.rows.append(row)

    @property
    def iou(self) -> np.ndarray:
        """Of each class, in percent; NaN where it occurs nowhere."""
        both, either = self.totals
        with np.errstate(invalid="ignore"):
            return 100 * both / either

    @property
    def mean(self) -> float:
        """Over the classes that occur; NaN if none does."""
        return float(np.nanmean(self.iou)) if self.totals.any() else float("nan")

    def metrics(self) -> dict[str, Any]:
        """The mean and every class for metrics.json, None where undefined."""
        mean, *each = (
            None if np.isnan(value) else float(value) for value in (self.mean, *self.iou)
        )
        return {"mBoundaryIoU": mean, "boundary_IoU": dict(zip(self._names, each, strict=True))}

    def __str__(self) -> str:
        return f"mBoundaryIoU {self.mean:.2f}"

    def section(self) -> tuple[str, str]:
        """Heading and HTML of the report."""
        rows = [
            (frame.escape(name), "" if np.isnan(value) else f"{value:.2f}")
            for name, value in zip(self._names, self.iou, strict=True)
        ]
        said = f"<p>Of bands inside the borders, {100 * RATIO:g} % of the diagonal wide.</p>"
        return "Boundary IoU", frame.table(("class", "IoU"), rows, said)


def inner_band(mask: Bool[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of the mask at most `width` pixels from its outside, diagonally too."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask & (cv2.erode(padded, SQUARE, iterations=width)[1:-1, 1:-1] == 0)
