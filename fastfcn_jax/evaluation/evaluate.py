"""Scores of a predictor on a data set, for validation during training and for `fastfcn eval`."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int, UInt8

from fastfcn_jax.data.datasets import Sample, Source
from fastfcn_jax.evaluation.metrics import Scores, confusion_matrix, foreground, scores, written
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.rescale import Size
from fastfcn_jax.terminal.progress import track

READ_THREADS = 4
FOREGROUND = ("IoU", "F1", "Precision", "Recall")  # what is shown of it


@runtime_checkable
class Extra(Protocol):
    """A score that needs more than the confusion matrix; it looks at each image as it passes."""

    needs_confidence: bool

    def add(self, label: UInt8[np.ndarray, "h w"], prediction: Prediction) -> None: ...

    def metrics(self) -> dict[str, Any]: ...

    def section(self) -> tuple[str, str]: ...


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """The counts of an evaluation.

    matrix: confusion matrix of all images of all hosts, rows label.
    ids: names of the images of this host.
    counts: for each of them and each class the number of pixels that are predicted correctly,
      that are labelled as the class, and that are predicted as the class.
    absent_counts_zero: a class that occurs nowhere counts as 0 in the means.
    extras: scores of the images of this host that the counts do not give.
    """

    protocol: str
    class_names: tuple[str, ...]
    matrix: Int[np.ndarray, "k k"]
    ids: tuple[str, ...]
    counts: Int[np.ndarray, "n 3 k"]
    num_images: int
    absent_counts_zero: bool = False
    extras: tuple[Extra, ...] = ()

    @property
    def scores(self) -> Scores:
        return scores(self.matrix, absent_counts_zero=self.absent_counts_zero)

    def __repr__(self) -> str:
        return f"{self.num_images} images, protocol {self.protocol}: {self.summary()}"

    @property
    def foreground(self) -> dict[str, Any] | None:
        """The name and scores of the class that is looked for; None unless there are two."""
        k = foreground(self.class_names)
        if k is None:
            return None
        return {"class": self.class_names[k], **_numbers(self.scores.of_class(k))}

    def summary(self) -> str:
        """The means in one line and, with two classes, the scores of the foreground."""
        said = [str(self.scores), *map(str, self.extras)]
        if (k := foreground(self.class_names)) is not None:
            found = self.scores.of_class(k)
            listed = "  ".join(f"{name} {written(found[name])}" for name in FOREGROUND)
            said.append(f"{self.class_names[k]}: {listed}")
        return "  ".join(said)

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json, in percent; None where undefined."""
        result = self.scores
        official_59 = self.absent_counts_zero and len(self.class_names) == 59
        # The papers report 60 classes: the background is one more, and it is never predicted.
        with_background = {"mIoU_60": _number(result.miou * 59 / 60)} if official_59 else {}
        binary = {} if self.foreground is None else {"foreground": self.foreground}
        return {
            "protocol": self.protocol,
            "num_images": self.num_images,
            "mIoU": _number(result.miou),
            "mAcc": _number(result.macc),
            "aAcc": _number(result.aacc),
            "mF1": _number(result.mf1),
            "mPrecision": _number(result.mprecision),
            "fwIoU": _number(result.fwiou),
            "kappa": _number(result.kappa),
            **with_background,
            **{name: value for extra in self.extras for name, value in extra.metrics().items()},
            **binary,
            "per_class": {
                name: _numbers(result.of_class(k)) for k, name in enumerate(self.class_names)
            },
        }


def evaluate(
    predictor: Predictor,
    source: Source,
    *,
    max_images: int = 0,
    extras: Sequence[Extra] = (),
    progress: bool = True,
    announce: Callable[[str], None] | None = None,
) -> Result:
    """Predicts every labelled image of `source` and counts its pixels.

    Only three counts for each class and image are kept. With n processes each
    takes every n-th image, and all return the same `matrix`.

    Args:
      max_images: only the first ones; 0: all.
      extras: scores that look at each image; they are in the result.
      progress: report on standard error (of process 0).
      announce: called with a text, the protocol and its cost, if the sizes were not planned yet.
    """
    names = source.info.class_names
    if hasattr(source, "image_size") and not predictor.is_planned:
        plan = predictor.announce(image_sizes(source, max_images))
        if announce is not None:
            announce(plan)
    total = min(len(source), max_images) if max_images else len(source)
    mine = range(jax.process_index(), total, jax.process_count())
    labels: dict[int, Sample] = {}

    def images() -> Iterator:
        for index, sample in _read_ahead(source, mine):
            labels[index] = sample
            yield index, sample.image

    if any(extra.needs_confidence for extra in extras):
        predictions = predictor.stream(images(), confidence=True)
    else:
        predictions = predictor.stream(images())
    if progress and jax.process_index() == 0:
        predictions = track(predictions, len(mine), f"evaluating ({predictor.protocol.name})")
    matrix = np.zeros((len(names), len(names)), np.int64)
    counts = {}
    for index, prediction in predictions:
        sample = labels.pop(index)
        one = confusion_matrix(sample.label, prediction.labels, len(names))
        matrix += one
        for extra in extras:
            extra.add(sample.label, prediction)
        counts[index] = sample.id, np.stack([np.diag(one), one.sum(axis=1), one.sum(axis=0)])
    ordered = [counts[index] for index in sorted(counts)]
    return Result(
        protocol=predictor.protocol.name,
        class_names=tuple(names),
        matrix=_sum_over_processes(matrix),
        ids=tuple(name for name, _ in ordered),
        counts=np.array([count for _, count in ordered]).reshape(-1, 3, len(names)),
        num_images=total,
        absent_counts_zero=predictor.protocol.is_official,
        extras=tuple(extras),
    )


def image_sizes(source: Source, max_images: int) -> list[Size]:
    """(height, width) of every image, from the files' headers."""
    size: Any = source  # its type does not show the optional `image_size`
    total = min(len(source), max_images) if max_images else len(source)
    with concurrent.futures.ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(size.image_size, range(total)))


def _read_ahead(source: Source, indices: range) -> Iterator[tuple[int, Sample]]:
    """Yields (index, sample) in order, read by threads a few samples ahead."""
    with concurrent.futures.ThreadPoolExecutor(READ_THREADS) as pool:
        waiting = []
        for index in indices:
            waiting.append((index, pool.submit(source.__getitem__, index)))
            if len(waiting) > READ_THREADS:
                first, future = waiting.pop(0)
                yield first, future.result()
        for index, future in waiting:
            yield index, future.result()


def _sum_over_processes(matrix: Int[np.ndarray, "k k"]) -> Int[np.ndarray, "k k"]:
    if jax.process_count() == 1:
        return matrix
    halves = np.stack([matrix >> 24, matrix & 0xFFFFFF]).astype(np.int32)  # JAX has no int64 here
    high, low = multihost_utils.process_allgather(halves).astype(np.int64).sum(axis=0)
    return (high << 24) + low


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}
