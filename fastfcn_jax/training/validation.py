"""Validation during training: records, pictures of fixed images, and early stopping."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data.source import Sample, Source
from fastfcn_jax.files import name_of, write_image
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.pictures import overlay


class Interrupted(Exception):
    """The user asked to stop during an evaluation."""


class InterruptibleSource:
    """Wraps a source; raises `Interrupted` instead of returning a sample once `asked()` is true."""

    def __init__(self, source: Source, asked: Callable[[], bool]):
        self._source, self._asked = source, asked
        self.info, self.ids = source.info, source.ids
        if (image_size := getattr(source, "image_size", None)) is not None:
            self.image_size = image_size  # lets the evaluation plan its padded sizes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        if self._asked():
            raise Interrupted
        return self._source[index]


def record(metrics: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The record of an evaluation for metrics.jsonl."""
    return {**metrics, "seconds": round(seconds, 1)}


def stops_early(evaluations: Sequence[dict[str, Any]], patience: int) -> bool:
    """Whether the last `patience` evaluations all failed to beat the best one before them.

    Evaluations without a score are ignored.
    """
    found = (evaluation["mIoU"] for evaluation in evaluations)
    scores = [score for score in found if score is not None]
    if len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])


def pictures(
    predictor: Predictor, source: Source, count: int
) -> list[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """Draws fixed images: (name, photograph with label beside photograph with prediction)."""
    drawn = []
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int):
        sample = source[int(index)]
        sides = [
            overlay(sample.image, labels, source.info.palette)
            for labels in (sample.label, predictor(sample.image))
        ]
        drawn.append((name_of(sample.id), np.concatenate(sides, axis=1)))
    return drawn


def save_pictures(folder: Path, drawn: Sequence[tuple[str, np.ndarray]]) -> None:
    """Writes pictures to a folder as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn:
        write_image(folder / f"{name}.png", picture)
