"""Compares two evaluations on the same images: paired bootstrap of the difference in mIoU."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fastfcn_jax import text
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.files import replacing

NAME = "counts.npz"
DRAWS = 2000
AT_ONCE = 100  # draws; all at once would take 320 MB for 20 000 images


class Difference(NamedTuple):
    """The mIoU of one evaluation minus another's, in percent, on the images of both.

    low, high: 95 % interval. worse: share of the resamples in which it is not above 0.
    """

    images: int
    value: float
    low: float
    high: float
    worse: float

    def __str__(self) -> str:
        return (
            f"mIoU {self.value:+.2f}, 95 % interval {self.low:+.2f} to {self.high:+.2f} (paired "
            f"bootstrap over {self.images} images; not better in {100 * self.worse:.1f} % of "
            "the resamples)"
        )


class Counts(NamedTuple):
    """Names of the images and their counts, as in `Result`.

    Files of older versions have only these two; the others are what was evaluated, and how.
    """

    ids: tuple[str, ...]
    counts: Int[np.ndarray, "n 3 k"]
    class_names: tuple[str, ...] = ()
    protocol: str = ""
    absent_counts_zero: bool = False
    step: int | None = None


def of_result(result: Result, step: int | None = None) -> Counts:
    """The counts of an evaluation.

    Args:
      step: of the training whose model was evaluated.
    """
    return Counts(
        result.ids,
        result.counts,
        result.class_names,
        result.protocol,
        result.absent_counts_zero,
        step,
    )


def save(folder: Path, result: Result, step: int | None = None) -> None:
    """Writes the counts of each image beside metrics.json, for later comparisons."""
    found = of_result(result, step)
    arrays = {
        "ids": np.array([text.escaped(name) for name in found.ids], np.str_),
        "counts": found.counts,
        "class_names": np.array(found.class_names, np.str_),
        "protocol": np.array(found.protocol, np.str_),
        "absent_counts_zero": np.array(found.absent_counts_zero),
        **({} if step is None else {"step": np.array(step)}),
    }
    with replacing(folder / NAME) as path:
        np.savez_compressed(path, **arrays)


def read(metrics: Path) -> Counts | None:
    """The counts beside a metrics.json (or in its folder); None if there are none."""
    path = (metrics if metrics.is_dir() else metrics.parent) / NAME
    try:
        with np.load(path) as stored:
            ids = tuple(map(text.unescaped, stored["ids"].tolist()))
            found = Counts(ids, stored["counts"])
            if "class_names" in stored:
                found = found._replace(
                    class_names=tuple(stored["class_names"].tolist()),
                    protocol=str(stored["protocol"]),
                    absent_counts_zero=bool(stored["absent_counts_zero"]),
                    step=int(stored["step"]) if "step" in stored else None,
                )
            return found
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def compare(
    result: Result, other: Counts, *, draws: int = DRAWS, seed: int = 0
) -> Difference | None:
    """The mIoU of an evaluation minus that of another; see `difference`."""
    return difference(of_result(result), other, draws=draws, seed=seed)


def difference(
    one: Counts, other: Counts, *, draws: int = DRAWS, seed: int = 0
) -> Difference | None:
    """The difference on the images of both; None if none is, or their classes differ in number.

    Every resample draws images with replacement, the same ones for both (Efron and Tibshirani 1993,
    ch. 16; Koehn 2004): what makes an image difficult for both does not widen the interval.
    """
    place = {name: i for i, name in enumerate(other.ids)}
    both = [(i, place[name]) for i, name in enumerate(one.ids) if name in place]
    if not both or other.counts.shape[1:] != one.counts.shape[1:]:
        return None
    mine, theirs = (list(indices) for indices in zip(*both, strict=True))
    pair = one.counts[mine], other.counts[theirs]
    n = len(both)
    zero = one.absent_counts_zero
    value = np.subtract(*(_miou(np.ones((1, n)), counts, zero) for counts in pair))[0]
    drawn = np.subtract(*_resampled(pair, zero, draws, seed))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Difference(n, float(value), float(low), float(high), float((drawn <= 0).mean()))


def interval(
    counts: Int[np.ndarray, "n 3 k"],
    *,
    absent_counts_zero: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % bootstrap interval of one evaluation's mIoU, in percent; NaN without a label."""
    if not counts[:, 1].any():
        return float("nan"), float("nan")
    (drawn,) = _resampled([counts], absent_counts_zero, draws, seed)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _resampled(
    evaluations: Sequence[Int[np.ndarray, "n 3 k"]],
    absent_counts_zero: bool,
    draws: int,
    seed: int,
) -> Float[np.ndarray, "e d"]:
    """The mIoU of each evaluation in each resample of the images, the same images for all."""
    images = len(evaluations[0])
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, draws, AT_ONCE):
        size = min(AT_ONCE, draws - start)
        weights = rng.multinomial(images, np.full(images, 1 / images), size=size)
        found.append([_miou(weights, counts, absent_counts_zero) for counts in evaluations])
    return np.concatenate(found, axis=1)


def _miou(
    weights: Float[np.ndarray, "d n"] | Int[np.ndarray, "d n"],
    counts: Int[np.ndarray, "n 3 k"],
    absent_counts_zero: bool,
) -> Float[np.ndarray, " d"]:
    """The mIoU in percent of each weighted set of images."""
    n, _, k = counts.shape
    sums = (weights.astype(np.float64) @ counts.reshape(n, -1)).reshape(-1, 3, k)
    union = sums[:, 1] + sums[:, 2] - sums[:, 0]
    iou = np.divide(sums[:, 0], union, where=union > 0, out=np.zeros(union.shape))
    classes = k if absent_counts_zero else (union > 0).sum(axis=1)
    return 100 * iou.sum(axis=1) / np.where(classes, classes, np.nan)
