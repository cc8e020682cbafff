"""metrics.jsonl, the truth about a run: one line a record, unbroken across interruptions."""

import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastfcn_jax import files
from fastfcn_jax.errors import UserError
from fastfcn_jax.stored import read_records as read


class Records:
    """Appends records to a file and hands them to other sinks.

    Every record has `kind` ("train" or "eval") and `step`. Starting at a step
    drops what lies behind it: a run that went on from an earlier checkpoint
    reads as one that was never interrupted. Only process 0 writes.

    Args:
      path: the JSONL file.
      start_step: the step that training resumes from; 0 begins a new file, and one that is there
        is renamed.
      sinks: called with every record that is added.

    Raises:
      UserError: the file has a line that is no record.
    """

    def __init__(self, path: Path, *, start_step: int, writes: bool = True, sinks=()):
        found = read(path)
        self.kept = [r for r in found if start_step > 0 and r["step"] <= start_step]
        self._start_step = start_step
        self._dropped = len(found) - len(self.kept)
        self._moved_to = ""
        self._sinks = tuple(sinks)
        self._path = path
        self._file = None
        if writes:
            if found and not start_step:  # the checkpoints they belong to are gone
                numbered = (path.with_name(f"metrics-{i}.jsonl") for i in itertools.count(1))
                self._moved_to = str(path.rename(next(p for p in numbered if not p.exists())))
            files.write_text(path, "".join(map(_line, self.kept)))
            self._file = path.open("a", encoding="utf-8")

    def note(self, pending: int) -> str:
        """What became of an earlier start's records, where that has to be said; else "".

        Args:
          pending: how many of the checkpoint's steps were not yet logged when it was written.
        """
        logged = self._start_step - pending
        train = {record["step"] for record in self.kept if record["kind"] == "train"}
        if logged > 0 and logged not in train:
            return f"warning: {self._path} lacks the record of step {logged}, perhaps others"
        if self._moved_to:
            return f"{self._dropped} records of steps without a checkpoint are in {self._moved_to}"
        if self._dropped:
            return f"{self._dropped} records after step {self._start_step} are made anew"
        return ""

    def sync(self) -> None:
        """Returns when all records are on the disk: no checkpoint may outlive its log."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes one record and remembers evaluations.

        Raises:
          UserError: the disk is full or cannot be written.
        """
        record = {"kind": kind, "step": step, **values}
        self.kept.append(record)
        if self._file is None:
            return
        try:
            self._file.write(_line(record))
            self._file.flush()
            for sink in self._sinks:
                sink(record)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}.") from error

    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluation records up to now, oldest first."""
        return [record for record in self.kept if record["kind"] == "eval"]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Meter:
    """Collects the metrics of each step until they are logged as means.

    `pending` (plain lists) goes into each checkpoint, so that a record begun before an
    interruption is completed after it. A metric has None for steps that did not give it: the
    loss may have other parts after the interruption.
    """

    def __init__(self, pending: Mapping[str, list[float | None]] | None = None):
        self.pending = {name: list(values) for name, values in (pending or {}).items()}

    def add(self, metrics: Mapping[str, float]) -> None:
        steps = len(self.pending.get("finite", ()))
        for name in {**self.pending, **metrics}:
            self.pending.setdefault(name, [None] * steps).append(metrics.get(name))

    def flush(self) -> dict[str, Any]:
        """Means over the steps since the last flush, and `losses`: the loss of each.

        Steps that were skipped as not finite are counted and left out of the means.
        """
        finite = [bool(value) for value in self.pending.pop("finite")]
        values: dict[str, Any] = {
            name: _mean([v for v, keep in zip(column, finite, strict=True) if keep])
            for name, column in self.pending.items()
        }
        values["learning_rate"] = self.pending["learning_rate"][-1]
        values["losses"] = [_finite(v) for v in self.pending["loss"]]
        if not all(finite):
            values["skipped"] = finite.count(False)
        self.pending = {}
        return values


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mean(values: list[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return float(np.mean(given)) if given else None


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
