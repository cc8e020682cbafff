"""report.html: scores, charts and pictures of an evaluation, in one file."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from fastfcn_jax import stored
from fastfcn_jax.data.source import Source
from fastfcn_jax.evaluation.evaluate import FOREGROUND, Result
from fastfcn_jax.evaluation.metrics import IGNORE_LABEL, foreground, written
from fastfcn_jax.evaluation.report import charts, frame, statistics
from fastfcn_jax.evaluation.report.baselines import Baseline, published
from fastfcn_jax.files import write_text
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.pictures import as_rgb, colorize

PICTURES = 3  # number of worst images shown, and of median ones


class Strip(NamedTuple):
    """One image of the gallery: photograph, label, prediction and errors side by side."""

    name: str
    score: float
    parts: tuple[UInt8[np.ndarray, "_ _ 3"], ...]


def write(
    path: Path,
    title: str,
    result: Result,
    *,
    palette: UInt8[np.ndarray, "k 3"],
    gallery: tuple[Sequence[Strip], Sequence[Strip]] = ((), ()),
    history: Sequence[dict[str, Any]] = (),
    baselines: Sequence[Baseline] = (),
    comparison: str = "",
    card: dict[str, Any] | None = None,
) -> None:
    """Writes the report; if that fails, no part of it is left.

    Args:
      gallery: strips of the worst and of the median images; see `make_gallery`.
      history: records of metrics.jsonl, for the curves.
      card: run.json.
    """
    scores = result.scores
    mean = [("mIoU", scores.miou), ("mAcc", scores.macc), ("aAcc", scores.aacc)]
    if (k := foreground(result.class_names)) is not None:
        found, name = scores.of_class(k), html.escape(result.class_names[k])
        mean += [(f"{score} of {name}", found[score]) for score in FOREGROUND]
    tiles = "".join(f"<div><b>{written(value)}</b>{name}</div>" for name, value in mean)
    against = "".join(
        f"<div><b>{scores.miou - b.miou:+.2f}</b>to {html.escape(b.name)} ({b.miou:.2f})</div>"
        for b in baselines
        if not np.isnan(scores.miou)
    )
    sections = [
        ("Comparison", f"<p>{html.escape(comparison)}</p>" if comparison else ""),
        ("Curves", _curves(history)),
        ("Classes", _classes(result, palette, baselines)),
        ("Confusion", _confusion(result)),
        *(extra.section() for extra in result.extras),
        ("Worst images", _strips(gallery[0])),
        ("Median images", _strips(gallery[1])),
        ("Run card", _card(card)),
    ]
    intro = f"{result.num_images} images, protocol {html.escape(result.protocol)}; percent"
    page = frame.page(title, intro, sections, tiles + against)
    write_text(path, page)


def write_run(
    path: Path,
    folder: Path,
    step: int,
    result: Result,
    predictor: Predictor,
    source: Source,
    config: ConfigDict,
    others: Sequence[Baseline] = (),
    comparison: str = "",
) -> None:
    """Writes the report of a model evaluated at `step` of the run in `folder`.

    Curves and run card come from the folder, if it is a training's.

    Args:
      comparison: what was found about the difference to another evaluation.
    """
    card = folder / "run.json"
    write(
        path,
        f"{folder.absolute().name}, step {step}",
        result,
        palette=source.info.palette,
        gallery=make_gallery(predictor, source, result),
        history=stored.read_records(folder / "metrics.jsonl"),
        baselines=[*published(config, result.protocol), *others],
        comparison=comparison,
        card=stored.read(card, dict, "move it away") if card.is_file() else None,
    )


def make_gallery(
    predictor: Predictor, source: Source, result: Result, count: int = PICTURES
) -> tuple[list[Strip], list[Strip]]:
    """Predicts the worst and the median images again and draws them, as (worst, median)."""
    scores = statistics.image_scores(result.counts)
    position = {name: i for i, name in enumerate(source.ids)}
    chosen = statistics.worst_and_median(scores, count)

    def strip(i: int) -> Strip:
        sample = source[position[result.ids[i]]]
        prediction = predictor(sample.image)
        palette = source.info.palette
        wrong = (prediction != sample.label) & (sample.label != IGNORE_LABEL)
        photo = as_rgb(sample.image)
        errors = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        errors[wrong] = (220, 30, 30)
        errors[sample.label == IGNORE_LABEL] = 0
        parts = (
            photo,
            colorize(sample.label, palette),
            colorize(prediction, palette),
            errors,
        )
        return Strip(sample.id, float(scores[i]), tuple(frame.shrink(part) for part in parts))

    worst, median = chosen
    return [strip(i) for i in worst], [strip(i) for i in median]


def _curves(history: Sequence[dict[str, Any]]) -> str:
    wanted = [
        ("train", "loss", "Training loss", ""),
        ("eval", "mIoU", "Validation mIoU", " %"),
        ("train", "learning_rate", "Learning rate", ""),
    ]
    drawn = []
    for kind, key, title, unit in wanted:
        records = [r for r in history if r["kind"] == kind and r.get(key) is not None]
        points = [(float(r["step"]), float(r[key])) for r in records]
        if points:
            drawn.append(charts.line_chart(title, points, unit))
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else ""


def _classes(result: Result, palette: np.ndarray, baselines: Sequence[Baseline]) -> str:
    scores = result.scores
    low, high = statistics.bootstrap(result.counts)
    pixels = result.matrix.sum(axis=1)
    compared = [b for b in baselines if b.iou]
    rows = []
    for k, name in enumerate(result.class_names):
        found = scores.of_class(k)
        known = not np.isnan(found["IoU"])
        drawn = charts.bar(found["IoU"], low[k], high[k], "rgb({},{},{})".format(*palette[k]))
        rows.append(
            (
                html.escape(name),
                drawn if known else "",
                _number(found["IoU"]),
                f"{low[k]:.1f} to {high[k]:.1f}" if not np.isnan(low[k]) else "",
                *(_number(found[score]) for score in ("Acc", "F1", "Precision")),
                f"{100 * pixels[k] / max(pixels.sum(), 1):.2f}",
                *(_delta(found["IoU"], b.iou.get(name)) for b in compared),
            )
        )
    heads = ("class", "", "IoU", "95 % interval", "Acc", "F1", "Precision", "share of pixels")
    others = (f"to {html.escape(b.name)}" for b in compared)
    return frame.table((*heads, *others), rows, "<p>Interval: bootstrap over the images.</p>")


def _confusion(result: Result) -> str:
    pixels = result.matrix.sum(axis=1)
    items = "".join(
        f"<li>{html.escape(result.class_names[a])} predicted as "
        f"{html.escape(result.class_names[b])}: {100 * count / pixels[a]:.1f} % of its pixels</li>"
        for a, b, count in statistics.confusions(result.matrix, 10)
    )
    return (
        '<div class="pair"><figure><figcaption>Rows label, columns prediction, in the order of '
        "the classes; the darker, the larger the share of the row</figcaption>"
        f"{charts.matrix_chart(result.matrix, result.class_names)}</figure>"
        f"<figure><figcaption>Largest errors, in pixels</figcaption><ol>{items}</ol></figure></div>"
    )


def _strips(strips: Sequence[Strip]) -> str:
    names = ("image", "label", "prediction", "errors")
    return "".join(
        frame.strip(f"{strip.name}, mIoU {strip.score:.1f}", zip(names, strip.parts, strict=True))
        for strip in strips
    )


def _card(card: dict[str, Any] | None) -> str:
    if not card:
        return ""
    text = html.escape(json.dumps(card, indent=1, ensure_ascii=False))
    return f"<details><summary>run.json</summary><pre>{text}</pre></details>"


def _delta(value: float, other: float | None) -> str:
    return "" if other is None or np.isnan(value) else f"{value - other:+.2f}"


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
