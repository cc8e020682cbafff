"""The curves of trainings, from their records: one run, or several over one another."""

from collections.abc import Sequence
from typing import Any, TypeGuard

from fastfcn_jax.evaluation.report import curves
from fastfcn_jax.evaluation.report.curves import Curve

History = Sequence[dict[str, Any]]
SCALARS = (  # (kind of record, key, title, unit) of the charts of several runs
    ("train", "loss", "Training loss", ""),
    ("eval", "mIoU", "Validation mIoU", " %"),
    ("train", "learning_rate", "Learning rate", ""),
    ("train", "accuracy", "Training pixel accuracy", " %"),
    ("train", "grad_norm", "Gradient norm", ""),
)
MEANS = ("mIoU", "mAcc", "aAcc", "mF1")


def of_run(history: History, class_names: Sequence[str]) -> str:
    """Loss and its parts, scores, the IoU of every class, learning rate and gradient norm.

    Args:
      class_names: in the order of the palette, whose colours the curves of the classes have.
    """
    parts = ["loss", *loss_parts(history)]
    losses = [Curve(_part_name(key), points(history, "train", key)) for key in parts]
    shown = [c for c in losses if c.points]
    means = [Curve(key, points(history, "eval", key)) for key in MEANS]
    classes = [
        Curve(name, class_points(history, name), f"k{k}") for k, name in enumerate(class_names)
    ]
    drawn = [
        # One part alone is the loss itself.
        curves.chart("Training loss and its parts", shown if len(shown) > 2 else shown[:1]),
        curves.chart("Validation scores", [c for c in means if c.points], " %"),
        curves.chart("Validation IoU of each class", [c for c in classes if c.points], " %"),
        *(
            curves.chart(title, [Curve(title, points(history, kind, key))], unit)
            for kind, key, title, unit in SCALARS
            if key not in ("loss", "mIoU")
        ),
    ]
    return side_by_side(drawn)


def of_runs(runs: Sequence[tuple[str, History]]) -> str:
    """Each scalar of all runs in one chart, those of the loss's parts too."""
    found = [part for _, history in runs for part in loss_parts(history)]
    parts = [("train", key, f"Loss: {_part_name(key)}", "") for key in dict.fromkeys(found)]
    return side_by_side(
        [
            curves.chart(title, [Curve(name, points(h, kind, key)) for name, h in runs], unit)
            for kind, key, title, unit in (*SCALARS, *parts)
        ]
    )


def classes_of_runs(runs: Sequence[tuple[str, History]]) -> str:
    """The validation IoU of each class, all runs in one chart."""
    found = [name for _, history in runs for record in history for name in per_class(record)]
    return side_by_side(
        [
            curves.chart(name, [Curve(run, class_points(h, name)) for run, h in runs], " %")
            for name in dict.fromkeys(found)
        ]
    )


def loss_parts(history: History) -> list[str]:
    """The keys of the loss's parts in the order of their first record."""
    return list(dict.fromkeys(k for r in history for k in r if k.startswith("loss_")))


def points(history: History, kind: str, key: str) -> list[tuple[float, float]]:
    """(step, value) of the records that have a number there; older versions wrote fewer keys."""
    found = ((r["step"], r.get(key)) for r in history if r["kind"] == kind)
    return [(float(step), float(value)) for step, value in found if _is_number(value)]


def class_points(history: History, name: str) -> list[tuple[float, float]]:
    """(step, IoU in percent) of a class, where it has one."""
    found = ((r["step"], per_class(r).get(name)) for r in history if r["kind"] == "eval")
    return [(float(step), float(value)) for step, value in found if _is_number(value)]


def per_class(record: dict[str, Any]) -> dict[str, Any]:
    """The IoU of each class of an evaluation, in percent; None or another type if undefined."""
    scores = record.get("per_class")
    if not isinstance(scores, dict):
        return {}
    return {name: s.get("IoU") for name, s in scores.items() if isinstance(s, dict)}


def side_by_side(charts: Sequence[str]) -> str:
    drawn = "".join(charts)
    return f'<div class="curves">{drawn}</div>' if drawn else ""


def _part_name(key: str) -> str:
    return "loss" if key == "loss" else key.removeprefix("loss_")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
