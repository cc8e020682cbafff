"""Calibration: how often predictions of a given probability are right (ECE)."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from fastfcn_jax.evaluation.report import charts
from fastfcn_jax.inference.prediction import Prediction

BINS = 15


class Calibration:
    """Counts of all labelled pixels by the probability of their predicted class.

    The expected calibration error is the mean over the pixels of |accuracy - confidence| of their
    bin, 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599).
    """

    name = "calibration"
    needs_confidence = True

    def __init__(self, num_classes: int):
        self._num_classes = num_classes
        self.rows: list[np.ndarray] = []

    @property
    def totals(self) -> Float[np.ndarray, "3 bins"]:
        """Pixels, those of them that are right, and the sum of their probabilities, of each bin.

        Added image by image: another order would change the last digit.
        """
        return functools.reduce(np.add, self.rows, np.zeros((3, BINS)))

    def add(self, label: UInt8[np.ndarray, "h w"], prediction: Prediction) -> None:
        """Counts the pixels of one image; the prediction has confidences."""
        assert prediction.confidence is not None
        valid = label < self._num_classes
        sure = prediction.confidence[valid].astype(np.float64)
        right = prediction.labels[valid] == label[valid]
        # Bins are (0, 1/15], (1/15, 2/15], ... as in the paper.
        bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
        counted = (None, right, sure)
        self.rows.append(np.stack([np.bincount(bins, x, BINS).astype(float) for x in counted]))

    @property
    def error(self) -> float:
        """ECE in percent; NaN without a labelled pixel."""
        count, right, confidence = self.totals
        if not count.any():
            return float("nan")
        return float(100 * np.abs(right - confidence).sum() / count.sum())

    def metrics(self) -> dict[str, Any]:
        """ECE in percent for metrics.json; None without a labelled pixel."""
        error = self.error
        return {"ECE": None if np.isnan(error) else error}

    def __str__(self) -> str:
        return f"ECE {self.error:.2f}"

    def section(self) -> tuple[str, str]:
        """Heading and HTML of the report."""
        count, right, confidence = self.totals
        if not count.any():
            return "Calibration", ""
        filled = np.flatnonzero(count)
        points = [(confidence[i] / count[i], right[i] / count[i]) for i in filled]
        shares = [count[i] / count.sum() for i in filled]
        said = (
            f"<p>Expected calibration error: {self.error:.2f} %. Below the diagonal the model is "
            "more certain than it is right.</p>"
        )
        return "Calibration", charts.reliability_chart(points, shares) + said
