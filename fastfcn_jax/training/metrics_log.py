"""metrics.jsonl, the log of a run: one record per line, continuous across interruptions."""

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastfcn_jax import files
from fastfcn_jax.errors import UserError
from fastfcn_jax.stored import read_records as read


class Records:
    """Appends records to a file and passes them to other sinks.

    Every record has `kind` ("train" or "eval"), `step` and `time`. Records after
    `start_step` are dropped, so that the log of a resumed run looks like that of
    an uninterrupted one.

    Args:
      path: the JSONL file.
      start_step: the step that training resumes from; 0 starts a new file and renames an existing
        one.
      writes: whether this process writes the file; only process 0 should.
      sinks: called with every record that is added.

    Raises:
      UserError: the file has a line that is not a record.
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
            if found and not start_step:  # the records belong to checkpoints that are gone
                numbered = (path.with_name(f"metrics-{i}.jsonl") for i in itertools.count(1))
                self._moved_to = str(path.rename(next(p for p in numbered if not p.exists())))
            files.write_text(path, "".join(map(_line, self.kept)))
            self._file = path.open("a", encoding="utf-8")

    def note(self, pending: int) -> str:
        """Tells the user if records of an earlier start are missing, moved or dropped; else "".

        Args:
          pending: number of steps before the checkpoint that were not yet logged when it was saved.
        """
        logged = self._start_step - pending
        train = {record["step"] for record in self.kept if record["kind"] == "train"}
        if logged > 0 and logged not in train:
            return f"warning: {self._path} lacks the record of step {logged}, perhaps others"
        if self._moved_to:
            return f"{self._dropped} records of steps without a checkpoint are in {self._moved_to}"
        if self._dropped:
            return f"{self._dropped} records after step {self._start_step} are written again"
        return ""

    def sync(self) -> None:
        """Flushes all records to the disk; otherwise a checkpoint could survive without its log."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes one record and passes it to the sinks.

        Raises:
          UserError: the disk is full or cannot be written.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")  # as in run.json
        record = {"kind": kind, "step": step, **values, "time": now}
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

    def also(self, sink: Callable[[Mapping[str, Any]], None]) -> None:
        """Passes what is added from now on to another sink."""
        self._sinks += (sink,)

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluation records so far, oldest first."""
        return [record for record in self.kept if record["kind"] == "eval"]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Meter:
    """Collects the metrics of each step until their means are logged.

    `pending` (plain lists) is saved in each checkpoint, so that a record begun before an
    interruption is completed after it. A metric is None for steps that did not compute it,
    because the loss may have other terms after the interruption.
    """

    def __init__(self, pending: Mapping[str, list[float | None]] | None = None):
        self.pending = {name: list(values) for name, values in (pending or {}).items()}

    def add(self, metrics: Mapping[str, float]) -> None:
        steps = len(self.pending.get("finite", ()))
        for name in {**self.pending, **metrics}:
            self.pending.setdefault(name, [None] * steps).append(metrics.get(name))

    def flush(self) -> dict[str, Any]:
        """Returns means over the steps since the last flush, and the loss of each as `losses`.

        Steps that were skipped as not finite are counted in `skipped` and left out of the means.
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
