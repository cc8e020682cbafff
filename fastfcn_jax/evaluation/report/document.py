"""report.html: scores, charts and pictures of an evaluation, in one file."""

import html
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from fastfcn_jax import provenance, stored
from fastfcn_jax.data.source import Source
from fastfcn_jax.evaluation.evaluate import FOREGROUND, Result
from fastfcn_jax.evaluation.metrics import foreground, written
from fastfcn_jax.evaluation.report import (
    charts,
    colors,
    facts,
    frame,
    gallery,
    matrix,
    paired,
    run_curves,
    statistics,
)
from fastfcn_jax.evaluation.report.baselines import Baseline, published
from fastfcn_jax.files import write_text
from fastfcn_jax.inference.predictor import Predictor


def write(
    path: Path,
    title: str,
    result: Result,
    *,
    palette: UInt8[np.ndarray, "k 3"],
    images: gallery.Gallery = gallery.Gallery(),  # noqa: B008  (a tuple, and never changed)
    history: Sequence[dict[str, Any]] = (),
    baselines: Sequence[Baseline] = (),
    comparison: str = "",
    card: dict[str, Any] | None = None,
    evaluated: Sequence[facts.Fact] = (),
) -> None:
    """Writes the report; if that fails, no part of it is left.

    Args:
      images: see `gallery.make`.
      history: records of metrics.jsonl, for the curves.
      card: run.json.
      evaluated: what is known about the evaluation itself, below the facts of the training.
    """
    known = [*(facts.of_training(card, history) if card else ()), *evaluated]
    sections = [
        ("Comparison", f"<p>{html.escape(comparison)}</p>" if comparison else ""),
        ("Curves", run_curves.of_run(history, result.class_names)),
        ("Classes", _classes(result, palette, baselines)),
        ("Confusion", _confusion(result)),
        *(extra.section() for extra in result.extras),
        *gallery.sections(images, result.class_names, palette),
        ("Run card", _card(card)),
    ]
    intro = f"{result.num_images} images, protocol {html.escape(result.protocol)}; percent"
    above = f'{frame.listed(known)}<div class="tiles">{_tiles(result, baselines)}</div>'
    write_text(path, frame.page(title, intro, sections, above, rules=colors.rules(palette)))


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
    file = folder / "run.json"
    card = stored.read(file, dict, "move it away") if file.is_file() else None
    write(
        path,
        f"{folder.absolute().name}, step {step}",
        result,
        palette=source.info.palette,
        images=gallery.make(predictor, source, result),
        history=stored.read_records(folder / "metrics.jsonl"),
        baselines=[*published(config, result.protocol), *others],
        comparison=comparison,
        card=card,
        evaluated=_evaluation(card, config, predictor, source),
    )


def _evaluation(
    card: dict[str, Any] | None, config: ConfigDict, predictor: Predictor, source: Source
) -> list[facts.Fact]:
    """Facts about this evaluation that the card of the training does not tell."""
    here = facts.devices([device.device_kind for device in jax.devices()], jax.process_count())
    now = time.strftime("%Y-%m-%d %H:%M")
    found = [("Evaluated", f"{now}, {source.info.name}, on {here}")]
    starts = (card or {}).get("starts") or [{}]
    if starts[-1].get("command") != provenance.command():
        found.append(("by the command", provenance.command()))
    if card is None or "parameters" not in card:
        leaves = jax.tree.leaves(predictor.variables["params"])
        found.append(("Parameters", facts.parameters(sum(int(x.size) for x in leaves))))
    if card is None:
        found.insert(0, ("Model", facts.model(config.to_dict())))
    return found


def _tiles(result: Result, baselines: Sequence[Baseline]) -> str:
    scores = result.scores
    mean = [("mAcc", scores.macc), ("aAcc", scores.aacc)]
    if (k := foreground(result.class_names)) is not None:
        found, name = scores.of_class(k), html.escape(result.class_names[k])
        mean += [(f"{score} of {name}", found[score]) for score in FOREGROUND]
    low, high = paired.interval(result.counts, absent_counts_zero=result.absent_counts_zero)
    between = "" if np.isnan(low) else f" <small>95 %: {low:.1f} to {high:.1f}</small>"
    first = f"<div><b>{written(scores.miou)}</b>mIoU{between}</div>"
    against = "".join(
        f"<div><b>{scores.miou - b.miou:+.2f}</b>to {html.escape(b.name)} ({b.miou:.2f})</div>"
        for b in baselines
        if not np.isnan(scores.miou)
    )
    return first + "".join(f"<div><b>{written(v)}</b>{n}</div>" for n, v in mean) + against


def _classes(result: Result, palette: np.ndarray, baselines: Sequence[Baseline]) -> str:
    scores = result.scores
    low, high = statistics.bootstrap(result.counts)
    pixels = result.matrix.sum(axis=1)
    compared = [b for b in baselines if b.iou]
    rows = []
    for k, name in enumerate(result.class_names):
        found = scores.of_class(k)
        known = not np.isnan(found["IoU"])
        rows.append(
            (
                f'<i class="swatch k{k}"></i>{html.escape(name)}',
                charts.bar(found["IoU"], low[k], high[k], f"k{k}") if known else "",
                _number(found["IoU"]),
                f"{low[k]:.1f} to {high[k]:.1f}" if not np.isnan(low[k]) else "",
                *(_number(found[score]) for score in ("Acc", "F1", "Precision")),
                f"{100 * pixels[k] / max(pixels.sum(), 1):.2f}",
                *(_delta(found["IoU"], b.iou.get(name)) for b in compared),
            )
        )
    heads = ("class", "", "IoU", "95 % interval", "Acc", "F1", "Precision", "share of pixels")
    others = (f"to {html.escape(b.name)}" for b in compared)
    said = "<p>Intervals: bootstrap over the images.</p>"
    return frame.table((*heads, *others), rows, said)


def _confusion(result: Result) -> str:
    pixels = result.matrix.sum(axis=1)
    items = "".join(
        f"<li>{html.escape(result.class_names[a])} predicted as "
        f"{html.escape(result.class_names[b])}: {100 * count / pixels[a]:.1f} % of its pixels</li>"
        for a, b, count in statistics.confusions(result.matrix, 10)
    )
    drawn = frame.scrolling(matrix.chart(result.matrix, result.class_names))
    many = len(result.class_names) > matrix.MOST
    cells = "the darker, the larger the share" if many else "percent, from 0.5 on,"
    return (
        '<div class="pair"><figure><figcaption>Rows label, columns prediction, in the order of '
        f"the classes; {cells} of the row</figcaption>{drawn}</figure>"
        f"<figure><figcaption>Largest errors, in pixels</figcaption><ol>{items}</ol></figure></div>"
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
