"""The run card in words: date, duration, data, parameters, device and command of a run.

Everything comes from run.json and metrics.jsonl, written by this or by an older version: what is
not there is left out.
"""

import datetime
import itertools
from collections.abc import Sequence
from typing import Any

WRITTEN = "%Y-%m-%dT%H:%M:%S%z"  # times in both files
FEW = 12  # classes that are named

Fact = tuple[str, str]


def of_training(card: dict[str, Any], history: Sequence[dict[str, Any]]) -> list[Fact]:
    """(name, value) of what is known about a training; "" where it is not."""
    starts = starts_of(card)
    first, last = (starts[0], starts[-1]) if starts else ({}, {})
    resumed = f", resumed {len(starts) - 1} times" if len(starts) > 2 else ", resumed once"
    steps = max((r["step"] for r in history), default=0)
    planned = _inner(card, "config", "train", "steps")
    data = _inner(card, "data") or {}
    git = last.get("git") or {}
    changed = f", {len(_list(git.get('changed')))} files changed" if git.get("changed") else ""
    return [
        ("Date", _date(first.get("time")) + (resumed if len(starts) > 1 else "")),
        ("Duration", duration(card, history)),
        ("Steps", f"{steps} of {planned}" if planned and steps else str(planned or "")),
        ("Data", _data(data, _inner(card, "config", "data") or {})),
        ("Model", model(card.get("config") or {})),
        ("Parameters", parameters(card.get("parameters"))),
        ("Device", devices(_list(last.get("devices")), last.get("processes", 1))),
        ("Versions", versions(last.get("versions") or card.get("versions") or {})),
        ("Commit", f"{str(git.get('commit', ''))[:12]}{changed}"),
        ("Command", str(last.get("command", ""))),
    ]


def duration(card: dict[str, Any], history: Sequence[dict[str, Any]]) -> str:
    """How long the starts of a run were at work; "" if a record has no time.

    Between two starts nothing ran: each counts up to its last record.
    """
    begun = [_moment(start.get("time")) for start in starts_of(card)]
    starts = sorted(moment for moment in begun if moment is not None)
    times = [_moment(record.get("time")) for record in history]
    if None in times:
        return ""  # of the part before the update nothing is known
    known = sorted(moment for moment in times if moment is not None)
    total = datetime.timedelta()
    for start, end in itertools.zip_longest(starts, starts[1:]):
        inside = [moment for moment in known if moment >= start and (end is None or moment < end)]
        total += inside[-1] - start if inside else datetime.timedelta()
    return in_words(total.total_seconds()) if total else ""


def in_words(seconds: float) -> str:
    """A duration with its two largest units."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def model(config: dict[str, Any]) -> str:
    """Backbone, neck and head of a stored configuration."""
    m = config.get("model") or {}
    parts = (m.get("backbone"), m.get("neck"), m.get("head"))
    lineage = f" ({m['lineage']} lineage)" if "lineage" in m else ""
    return " + ".join(str(part) for part in parts if part not in (None, "none")) + lineage


def parameters(count: Any) -> str:
    """A number of parameters; "" if it is not known."""
    if not isinstance(count, int):
        return ""
    return f"{count / 1e6:.2f} million" if count >= 1e5 else str(count)


def devices(kinds: Sequence[Any], processes: Any = 1) -> str:
    """Devices of one kind counted together."""
    counted = [f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)]
    many = f" in {processes} processes" if isinstance(processes, int) and processes > 1 else ""
    return ", ".join(counted) + many


def versions(found: dict[str, Any]) -> str:
    """The packages that decide about the numbers."""
    named = [name for name in ("fastfcn_jax", "jax", "flax", "python") if name in found]
    return ", ".join(f"{name} {found[name]}" for name in named)


def _data(data: dict[str, Any], settings: dict[str, Any]) -> str:
    classes = [str(name) for name in _list(data.get("classes"))]
    listed = f": {', '.join(classes)}" if len(classes) <= FEW else ""
    parts = [
        str(data.get("name", "")),
        f"{data['samples']} images to train on" if "samples" in data else "",
        f"validation split {settings['val_split']}" if "val_split" in settings else "",
        f"{len(classes)} classes{listed}" if classes else "",
    ]
    return ", ".join(part for part in parts if part)


def _date(time: Any) -> str:
    moment = _moment(time)
    return moment.strftime("%Y-%m-%d %H:%M") if moment else ""


def _moment(time: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.strptime(time, WRITTEN)
    except (TypeError, ValueError):
        return None


def _inner(card: dict[str, Any], *keys: str) -> Any:
    """A value within nested objects; None if one of them is missing."""
    found: Any = card
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def starts_of(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The starts of a run that its card lists; entries of another form are left out."""
    return [start for start in _list(card.get("starts")) if isinstance(start, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
