"""Scores of a predictor on a data set, for validation during training and for `fastfcn eval`."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int, UInt8

from fastfcn_jax import runtime
from fastfcn_jax.data.datasets import Sample, Source
from fastfcn_jax.evaluation import tally
from fastfcn_jax.evaluation.metrics import Scores, confusion_matrix, foreground, scores, written
from fastfcn_jax.evaluation.tally import Tally
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.rescale import Size
from fastfcn_jax.terminal.progress import track

READ_THREADS = 4
FOREGROUND = ("IoU", "F1", "Precision", "Recall")  # what is shown of it


@runtime_checkable
class Extra(Protocol):
    """A score that needs more than the confusion matrix; it looks at each image as it passes.

    rows: for each image that was added the numbers that the score is computed from.
    """

    name: str
    needs_confidence: bool
    rows: list[np.ndarray]

    def add(self, label: UInt8[np.ndarray, "h w"], prediction: Prediction) -> None: ...

    def metrics(self) -> dict[str, Any]: ...

    def section(self) -> tuple[str, str]: ...


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """The counts of an evaluation.

    matrix: confusion matrix of all images, rows label.
    ids: names of the images.
    counts: for each of them and each class the number of pixels that are predicted correctly,
      that are labelled as the class, and that are predicted as the class.
    absent_counts_zero: a class that occurs nowhere counts as 0 in the means.
    extras: scores that the counts do not give.
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

    Only three counts for each class and image are kept, and what `extras` keep. With n processes
    each takes every n-th pass, and all return the same result, that of one process.

    Args:
      max_images: only the first ones; 0: all.
      extras: scores that look at each image; they are in the result.
      progress: report on standard error (of process 0).
      announce: called with a text, the protocol and its cost, if the sizes were not planned yet.
    """
    counted = count(
        predictor,
        source,
        max_images=max_images,
        extras=extras,
        progress=progress,
        announce=announce,
    )
    protocol = predictor.protocol
    return result_of(counted, protocol.name, source.info.class_names, extras, protocol.is_official)


def result_of(
    counted: Tally,
    protocol: str,
    class_names: Sequence[str],
    extras: Sequence[Extra],
    absent_counts_zero: bool,
) -> Result:
    """The scores of the counted images; those of `extras` are taken from there, too."""
    for extra in extras:
        extra.rows = list(counted.extras[extra.name])
    return Result(
        protocol=protocol,
        class_names=tuple(class_names),
        matrix=counted.matrix,
        ids=counted.ids,
        counts=counted.counts,
        num_images=len(counted.ids),
        absent_counts_zero=absent_counts_zero,
        extras=tuple(extras),
    )


def count(
    predictor: Predictor,
    source: Source,
    *,
    share: tuple[int, int] = (0, 1),
    max_images: int = 0,
    extras: Sequence[Extra] = (),
    progress: bool = True,
    announce: Callable[[str], None] | None = None,
) -> Tally:
    """As `evaluate`, but only share (index, number of shares), and counts instead of scores.

    All processes divide the share and return the same.
    """
    total = min(len(source), max_images) if max_images else len(source)
    is_whole = jax.process_count() * share[1] == 1
    passes = plan_passes(predictor, source, total, is_whole=is_whole, announce=announce)[0]
    mine = passes[share[0] :: share[1]][jax.process_index() :: jax.process_count()]
    indices = sorted(index for together in mine for index in together)
    shown = progress and jax.process_index() == 0
    counted = _count(predictor, source, indices, extras, shown)
    runtime.wait_for_all()  # one process may be far slower than the others
    return tally.join([tally.unpack(x) for x in runtime.gather_bytes(tally.pack(counted))])


def plan_passes(
    predictor: Predictor,
    source: Source,
    total: int,
    *,
    is_whole: bool,
    announce: Callable[[str], None] | None,
) -> tuple[list[list[int]], list[Size]]:
    """Which of the first images are predicted together, and all sizes if they were needed for that.

    The images of a pass stay together: in another place of a batch an image may be computed by
    operations that round differently. Plans the padded sizes, if they are not planned yet.

    Args:
      is_whole: all images are predicted here, in order; the passes are then single images.
    """
    divides = not is_whole and predictor.batch_size > 1
    sizes: list[Size] = []
    if hasattr(source, "image_size") and (divides or not predictor.is_planned):
        sizes = _image_sizes(source, total)
    if sizes and not predictor.is_planned:
        plan = predictor.announce(sizes)
        if announce is not None:
            announce(plan)
    return predictor.passes(sizes) if sizes and divides else [[i] for i in range(total)], sizes


def _count(
    predictor: Predictor,
    source: Source,
    indices: Sequence[int],
    extras: Sequence[Extra],
    progress: bool,
) -> Tally:
    """The counts of the images at `indices`."""
    k = source.info.num_classes
    labels: dict[int, Sample] = {}

    def images() -> Iterator:
        for index, sample in _read_ahead(source, indices):
            labels[index] = sample
            yield index, sample.image

    if any(extra.needs_confidence for extra in extras):
        predictions = predictor.stream(images(), confidence=True)
    else:
        predictions = predictor.stream(images())
    if progress:
        predictions = track(predictions, len(indices), f"evaluating ({predictor.protocol.name})")
    matrix = np.zeros((k, k), np.int64)
    positions, ids, counts = [], [], []
    for index, prediction in predictions:
        sample = labels.pop(index)
        one = confusion_matrix(sample.label, prediction.labels, k)
        matrix += one
        for extra in extras:
            extra.add(sample.label, prediction)
        positions.append(index)
        ids.append(sample.id)
        counts.append(np.stack([np.diag(one), one.sum(axis=1), one.sum(axis=0)]))
    rows = {extra.name: np.array(extra.rows) for extra in extras}
    every = np.array(counts, np.int64).reshape(-1, 3, k)
    return tally.join([Tally(np.array(positions, np.int64), tuple(ids), matrix, every, rows)])


def _image_sizes(source: Source, total: int) -> list[Size]:
    """(height, width) of the first images, from the files' headers."""
    size: Any = source  # its type does not show the optional `image_size`
    with concurrent.futures.ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(size.image_size, range(total)))


def _read_ahead(source: Source, indices: Sequence[int]) -> Iterator[tuple[int, Sample]]:
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


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}
