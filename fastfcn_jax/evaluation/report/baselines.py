"""Scores to compare an evaluation with: the published one, and those of another run."""

import json
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from fastfcn_jax.errors import UserError


class Baseline(NamedTuple):
    """A mean IoU and, where known, the IoU of every class, in percent."""

    name: str
    miou: float
    iou: dict[str, float | None]


def published(config: ConfigDict, protocol: str) -> list[Baseline]:
    """The published score of this experiment and protocol: one item, or none."""
    figures = {
        "single": config.published.miou,
        "flip": config.published.miou_flip,
        "paddleseg_ms": config.published.miou_ms_flip,
        "ms_flip": config.published.miou_ms_flip,
        "ms_flip_0x": config.published.miou_ms_flip,
        "official_ms": config.published.miou_ms_flip,
    }
    miou = figures.get(protocol, 0.0)
    return [Baseline("published", miou, {})] if miou else []


def read(path: Path) -> Baseline:
    """Scores of another evaluation, from its metrics.json or the folder that contains it.

    Raises:
      UserError: there is no such file, or it is no metrics.json.
    """
    path = path / "metrics.json" if path.is_dir() else path
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        iou = {name: scores["IoU"] for name, scores in metrics["per_class"].items()}
        miou = metrics["mIoU"]
        if miou is not None:
            return Baseline(path.absolute().parent.name, float(miou), iou)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--compare {path}: is no metrics.json that `fastfcn eval` wrote."
        ) from error
    raise UserError(f"--compare {path}: its evaluation met no labelled pixel and has no score.")
