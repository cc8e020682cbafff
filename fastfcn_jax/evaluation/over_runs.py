"""Mean and standard deviation of the stored scores of several runs, as of one per seed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from fastfcn_jax.config import experiment
from fastfcn_jax.errors import UserError

SCORES = ("mIoU", "mAcc", "aAcc", "mF1", "fwIoU")
_NOT_COMPARED = ("seed", *(f"data.{key}" for key in experiment.PER_HOST))


class Spread(NamedTuple):
    """Values in percent, their mean and their sample standard deviation (divisor n - 1)."""

    values: tuple[float, ...]
    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.deviation:.2f}"


class Summary(NamedTuple):
    """The scores of several runs by one protocol on one set of images.

    classes: the IoU of each class; None where a run has none. notes: what else differs.
    """

    protocol: str
    num_images: int
    scores: dict[str, Spread]
    classes: dict[str, Spread | None]
    notes: tuple[str, ...]


def summarize(runs: Sequence[str | Path]) -> Summary:
    """Reads metrics.json of each run: a file, its folder, or a workdir with eval/metrics.json.

    Raises:
      UserError: there are fewer than two runs, one is given twice or has no scores, or protocol,
        number of images or classes differ.
    """
    files = [_file(Path(run).expanduser()) for run in runs]
    if len(files) < 2:
        raise UserError("--mean needs two runs or more.")
    for i, file in enumerate(files):
        if file.resolve() in [other.resolve() for other in files[:i]]:
            raise UserError(f"--mean {file}: is given twice.")
    found = [_read(file) for file in files]
    first = found[0]
    for file, metrics in zip(files[1:], found[1:], strict=True):
        for what, key in (("protocol", "protocol"), ("number of images", "num_images")):
            _refuse_difference(what, (metrics[key], first[key]), file, files[0])
        names = list(metrics["per_class"]), list(first["per_class"])
        _refuse_difference("classes", names, file, files[0])
    classes = {name: [m["per_class"][name]["IoU"] for m in found] for name in first["per_class"]}
    return Summary(
        first["protocol"],
        first["num_images"],
        {name: _spread([m[name] for m in found]) for name in SCORES if _have(found, name)},
        {name: None if None in values else _spread(values) for name, values in classes.items()},
        _other_settings(files),
    )


def print_summary(summary: Summary) -> None:
    """Prints a table of the classes' IoU and a line for each score."""
    count = len(summary.scores["mIoU"].values)
    table = Table("class")
    table.add_column("IoU", justify="right")
    for name, spread in summary.classes.items():
        table.add_row(name, "-" if spread is None else str(spread))
    Console().print(table)
    for name, spread in summary.scores.items():
        print(f"{name:6} {spread}   ({', '.join(f'{value:.2f}' for value in spread.values)})")
    print(
        f"{count} runs, {summary.num_images} images, protocol {summary.protocol}: "
        "mean ± sample standard deviation"
    )
    for note in summary.notes:
        print(note)


def _file(run: Path) -> Path:
    for path in (run / "metrics.json", run / "eval" / "metrics.json", run):
        if path.is_file():
            return path
    raise UserError(f"--mean {run}: has no metrics.json; `fastfcn eval --checkpoint` writes it.")


def _read(file: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        numbers = [metrics["mIoU"], *(s["IoU"] for s in metrics["per_class"].values())]
        whole = isinstance(metrics["num_images"], int) and isinstance(metrics["protocol"], str)
        known = numbers[0] is not None and all(isinstance(n, float | int | None) for n in numbers)
        if whole and known:
            return metrics
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"--mean {file}: is no metrics.json with scores that `fastfcn eval` wrote.")


def _refuse_difference(what: str, values: tuple[Any, Any], file: Path, first: Path) -> None:
    if values[0] != values[1]:
        raise UserError(
            f"--mean: the {what} of {file} and {first} differ; evaluate both in the same way."
        )


def _have(found: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(isinstance(metrics.get(name), float | int) for metrics in found)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(tuple(values), float(np.mean(values)), float(np.std(values, ddof=1)))


def _other_settings(files: Sequence[Path]) -> tuple[str, ...]:
    """Which settings but the seed differ between the runs, where their workdirs are known."""
    cards = [_settings(file.parent.parent / "model.json") for file in files]
    known = [card for card in cards if card is not None]
    if len(known) < len(files):
        return ()
    keys = sorted({key for card in known for key in card} - set(_NOT_COMPARED))
    differing = [key for key in keys if len({repr(card.get(key)) for card in known}) > 1]
    if not differing:
        return ()
    return (f"warning: not only the seed differs between the runs: {', '.join(differing)}",)


def _settings(card: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(card.read_text(encoding="utf-8"))["config"]
        return {
            f"{section}.{key}" if isinstance(value, dict) else section: inner
            for section, value in config.items()
            for key, inner in (value.items() if isinstance(value, dict) else [("", value)])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
