"""Calibration: how often predictions of a given probability are right (ECE)."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.evaluation.report import charts
from fastfcn_jax.inference.prediction import Prediction

BINS = 15


class Calibration:
    """Counts of all labelled pixels by the probability of their predicted class.

    The expected calibration error is the mean over the pixels of |accuracy - confidence| of their
    bin, 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599).
    """

    needs_confidence = True

    def __init__(self, num_classes: int):
        self._num_classes = num_classes
        self.count, self.right, self.confidence = np.zeros((3, BINS))

    def add(self, label: UInt8[np.ndarray, "h w"], prediction: Prediction) -> None:
        """Counts the pixels of one image; the prediction has confidences."""
        assert prediction.confidence is not None
        valid = label < self._num_classes
        sure = prediction.confidence[valid].astype(np.float64)
        right = prediction.labels[valid] == label[valid]
        # Bins are (0, 1/15], (1/15, 2/15], ... as in the paper.
        bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
        self.count += np.bincount(bins, minlength=BINS)
        self.right += np.bincount(bins, right, minlength=BINS)
        self.confidence += np.bincount(bins, sure, minlength=BINS)

    @property
    def error(self) -> float:
        """ECE in percent; NaN without a labelled pixel."""
        if not self.count.any():
            return float("nan")
        return float(100 * np.abs(self.right - self.confidence).sum() / self.count.sum())

    def metrics(self) -> dict[str, Any]:
        """ECE in percent for metrics.json; None without a labelled pixel."""
        return {"ECE": None if np.isnan(self.error) else self.error}

    def __str__(self) -> str:
        return f"ECE {self.error:.2f}"

    def section(self) -> tuple[str, str]:
        """Heading and HTML of the report."""
        if not self.count.any():
            return "Calibration", ""
        filled = np.flatnonzero(self.count)
        points = [
            (self.confidence[i] / self.count[i], self.right[i] / self.count[i]) for i in filled
        ]
        shares = [self.count[i] / self.count.sum() for i in filled]
        said = (
            f"<p>Expected calibration error: {self.error:.2f} %. Below the diagonal the model is "
            "more certain than it is right.</p>"
        )
        return "Calibration", charts.reliability_chart(points, shares) + said
