"""Statistics of a report: intervals, ranking of images, confusions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_DRAWS = 500


def bootstrap(
    counts: Int[np.ndarray, "n 3 k"], *, seed: int = 0
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The 95 % bootstrap interval of each class's IoU, in percent, as (lower, upper).

    The images are resampled with replacement; NaN where a class occurs in no resample.
    """
    n, _, classes = counts.shape
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(np.float64)
    sums = (weights @ counts.reshape(n, -1)).reshape(_DRAWS, 3, classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = 100 * sums[:, 0] / (sums[:, 1] + sums[:, 2] - sums[:, 0])
    bounds = np.full((2, classes), np.nan)
    known = ~np.isnan(iou).all(axis=0)
    bounds[:, known] = np.nanpercentile(iou[:, known], [2.5, 97.5], axis=0)
    return bounds[0], bounds[1]


def image_scores(counts: Int[np.ndarray, "n 3 k"]) -> Float[np.ndarray, " n"]:
    """The mIoU of each image in percent, over the classes in its label or prediction.

    NaN where no pixel of it is labelled.
    """
    union = counts[:, 1] + counts[:, 2] - counts[:, 0]
    iou = np.divide(counts[:, 0], union, where=union > 0, out=np.zeros(union.shape))
    classes = (union > 0).sum(axis=1)
    return 100 * iou.sum(axis=1) / np.where(classes > 0, classes, np.nan)


class Extremes(NamedTuple):
    """Indices of images; none is in two of the lists."""

    worst: list[int]
    median: list[int]
    best: list[int]


def extremes(scores: Float[np.ndarray, " n"], count: int) -> Extremes:
    """The `count` images of the lowest scores, of the highest, and around the median.

    Fewer of each if there are not three times as many. An image without a score is in none.
    """
    order = np.argsort(scores, kind="stable")[: np.count_nonzero(~np.isnan(scores))].tolist()
    count = min(count, -(-len(order) // 3))
    worst, rest = order[:count], order[count:]
    best, middle = rest[len(rest) - count :][::-1], rest[: max(len(rest) - count, 0)]
    start = max((len(middle) - count + 1) // 2, 0)
    return Extremes(worst, middle[start : start + count], best)


def confusions(matrix: Int[np.ndarray, "k k"], count: int) -> list[tuple[int, int, int]]:
    """(label, prediction, number of pixels) of the most frequent errors."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(errors.ravel(), kind="stable")[::-1][:count]
    pairs = [divmod(int(i), len(matrix)) for i in order]
    return [(a, b, int(errors[a, b])) for a, b in pairs if errors[a, b] > 0]
