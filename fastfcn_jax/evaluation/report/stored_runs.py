"""What runs have left behind: records, card, configuration, and scores with their counts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastfcn_jax import stored
from fastfcn_jax.config import base, experiment
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.report import facts, paired, run_curves

CLASSES = {"class_names": [str], "palette": [[int]]}  # of model.json, for the colours of curves
METRICS = {
    "mIoU": stored.NUMBER,
    "per_class": dict,
    "protocol?": str,
    "num_images?": int,
}
REMEDY = "fix it, or evaluate the run again"


class Scored(NamedTuple):
    """One evaluation of a run, in percent.

    metrics: as in metrics.json. counts: of each image; None: they were not stored.
    where: which evaluation this is.
    """

    where: str
    metrics: dict[str, Any]
    counts: paired.Counts | None

    @property
    def miou(self) -> float:
        return float(self.metrics["mIoU"])


class Run(NamedTuple):
    """A training's folder, or the folder of an evaluation.

    history: records of metrics.jsonl, [] for an evaluation alone.
    card: run.json, {} if there is none; config: the configuration as stored, likewise.
    palette: colour of each class by its name, likewise.
    scored: the evaluation that is compared; None if there is none.
    """

    name: str
    folder: Path
    history: list[dict[str, Any]]
    card: dict[str, Any]
    config: dict[str, Any]
    palette: dict[str, list[int]]
    scored: Scored | None


def read(folders: Sequence[Path]) -> list[Run]:
    """Reads runs of this or an older version.

    Raises:
      UserError: a folder is neither, is named twice, or a file in it is damaged.
    """
    folders = [folder.parent if folder.name == "metrics.json" else folder for folder in folders]
    return [_read(f, name) for f, name in zip(folders, names(folders), strict=True)]


def names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell it from the others.

    Raises:
      UserError: two are the same folder.
    """
    paths = [folder.absolute().resolve() for folder in folders]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise UserError(f"{folders[i]}: is named twice; name each run once.")
    lengths = [1] * len(paths)
    while True:
        found = ["/".join(p.parts[-n:]) for p, n in zip(paths, lengths, strict=True)]
        double = [name for i, name in enumerate(found) if name in found[:i]]
        if not double:
            return found
        lengths = [n + (name in double) for n, name in zip(lengths, found, strict=True)]


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the --workdir of a training.")
    history = stored.read_records(folder / "metrics.jsonl")
    scored = _scored(folder, history)
    if not history and scored is None:
        raise UserError(
            f"{folder}: has neither metrics.jsonl nor metrics.json; name the --workdir of a "
            "training, or the --output of `fastfcn eval`."
        )
    # An evaluation is written into a folder of its run.
    home = next((f for f in (folder, folder.parent) if (f / "model.json").is_file()), folder)
    card, model = (_object(home / file) for file in ("run.json", "model.json"))
    config = card.get("config", model.get("config", {}))
    config = config if isinstance(config, dict) else {}
    classes = model.get("dataset", {})
    palette = {} if stored.fault(classes, CLASSES) else _palette(classes)
    return Run(name, folder, history, card, config, palette, scored)


def _palette(classes: dict[str, Any]) -> dict[str, list[int]]:
    return {
        name: [min(max(c, 0), 255) for c in color]
        for name, color in zip(classes["class_names"], classes["palette"], strict=False)
        if len(color) == 3
    }


def _scored(folder: Path, history: Sequence[dict[str, Any]]) -> Scored | None:
    """The last validation, or `fastfcn eval`'s scores: the first with counts; else the first."""
    found: list[Scored] = []
    done = [r for r in history if r["kind"] == "eval" and r.get("mIoU") is not None]
    if done:
        counts = paired.read(folder)
        fits = counts is not None and counts.step == done[-1]["step"]
        found.append(Scored(f"step {done[-1]['step']}", done[-1], counts if fits else None))
    for place in (folder, folder / "eval"):
        if (place / "metrics.json").is_file():
            metrics = stored.read(place / "metrics.json", METRICS, REMEDY)
            counts = paired.read(place)
            fits = counts is not None and counts.step is None
            if metrics["mIoU"] is not None:
                found.append(Scored(f"{place.name}/", metrics, counts if fits else None))
    return next((scored for scored in found if scored.counts), found[0] if found else None)


def _object(path: Path) -> dict[str, Any]:
    return stored.read(path, dict, "move it away") if path.is_file() else {}


def class_names(runs: Sequence[Run]) -> list[str]:
    """The classes of all runs, each once."""
    found = [run_curves.per_class(run.scored.metrics) for run in runs if run.scored]
    return list(dict.fromkeys(name for scores in found for name in scores))


def differing_keys(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """(key, value in each run) of every key of the configuration that is not the same in all.

    A key that an older version did not know has its default; "" where the run has none at all.
    """
    defaults = _flat(experiment.to_json(base.get_config()))
    flat = [_flat(run.config) for run in runs]
    keys = dict.fromkeys([*defaults, *(key for found in flat for key in found)])
    rows = []
    for key in keys:
        values = [_shown(f.get(key, defaults.get(key))) if f else "" for f in flat]
        if len(set(values)) > 1:
            rows.append((key, values))
    return rows


def differing_facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The same for the data, the versions and the commit of the runs' cards."""
    flat = []
    for run in runs:
        starts = facts.starts_of(run.card)
        last = starts[-1] if starts else {}
        git = last.get("git") or {}
        commit = {"git.commit": git.get("commit"), "git.changed": len(git.get("changed") or ())}
        parts = {"data": run.card.get("data"), "versions": last.get("versions")}
        flat.append(_flat(parts) | (commit if git else {}))
    keys = dict.fromkeys(key for found in flat for key in found)
    rows = [(key, [_shown(found.get(key)) for found in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
