"""`OUT/predictions.jsonl`: what was predicted from what, by which model and with which settings.

The first line of a call has `status` "started", its settings and its model. Each photograph adds
a line with `name` (of its results), `input`, `outputs`, the checksums `model` and `settings`, and
`status`: "ok", "failed" with a `reason`, or "kept", without checksums, for complete results that
were there before there was a manifest. The newest line of a name counts.
"""

import datetime
import fcntl
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastfcn_jax import files, text
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict.shards import ALL, Shard, file_name

OK, FAILED, KEPT, STARTED = "ok", "failed", "kept", "started"
_STEM, _SUFFIX = "predictions", ".jsonl"
_ANY = f"{_STEM}*{_SUFFIX}"


class Call(NamedTuple):
    """What decides the results of a call: the model, and the choices by name."""

    model: str
    choices: dict[str, Any]

    @property
    def settings(self) -> str:
        """A checksum of the choices."""
        return checksum(self.choices)


def checksum(content: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Records:
    """Records of photographs, kept in `lines`."""

    def __init__(self, call: Call):
        self.call = call
        self.lines: list[dict[str, Any]] = []

    def ok(self, name: str, source: str, outputs: Sequence[str]) -> None:
        """Records a photograph whose results are complete, by their names below the folder."""
        line = {"name": name, "input": source, "outputs": list(outputs), "status": OK}
        self.append(line | self._sums())

    def kept(self, name: str, source: str, outputs: Sequence[str]) -> None:
        """Records results of which nothing tells who made them, so that they go on counting."""
        self.append({"name": name, "input": source, "outputs": list(outputs), "status": KEPT})

    def failed(self, name: str, source: str, reason: str) -> None:
        line = {"name": name, "input": source, "outputs": [], "status": FAILED}
        self.append(line | {"reason": text.shown(reason)} | self._sums())

    def append(self, record: dict[str, Any]) -> None:
        self.lines.append(record)

    def _sums(self) -> dict[str, str]:
        return {"model": self.call.model, "settings": self.call.settings}


class Manifest(Records):
    """The open manifest of a process; `with` closes it.

    Each shard has a file of its own: lines of two processes could mix on a file server.

    Raises:
      UserError: the file cannot be written, or another process is writing it.
    """

    def __init__(self, folder: Path, call: Call, shard: Shard = ALL, **about: Any):
        super().__init__(call)
        self.path = folder / file_name(_STEM, _SUFFIX, shard)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise files.unwritable(self.path, error) from error
        self._lock()
        _cut_last_line(self._file)
        self._first: dict[str, Any] | None = {"shard": str(shard), **about}

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_) -> None:
        os.close(self._file)

    def append(self, record: dict[str, Any]) -> None:
        self.begin()
        self._write(record)

    def begin(self) -> None:
        """Writes the first line of the call; the first record does it otherwise."""
        if self._first is not None:
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
            started = {"status": STARTED, "time": time, **self._first, **self._sums()}
            self._first = None
            self._write({**started, "choices": self.call.choices})

    def _write(self, record: dict[str, Any]) -> None:
        """One write of a whole line: a kill leaves it complete, or cut and ignored."""
        line = (json.dumps(record) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise files.unwritable(self.path, error) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise UserError(
                f"{self.path}: another process is predicting into this folder; wait for it, give "
                "each process its --shard I/N, or another --output."
            ) from error
        except OSError:
            pass  # a file server without locks


def _cut_last_line(file: int) -> None:
    """Removes the end of a line that a crash cut."""
    size = os.fstat(file).st_size
    place, tail = max(size - (1 << 20), 0), b""
    if size:
        tail = os.pread(file, size - place, place)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(file, place + tail.rfind(b"\n") + 1)


class Past:
    """The newest record of each name in all manifests of a folder; 24 bytes a record."""

    def __init__(self, folder: Path, call: Call):
        self.other: dict[str, Any] | None = None  # the last call with another model or settings
        names, times, makers = array("q"), array("d"), array("q")
        newest = -1.0
        self.has_begun = False  # whether any call has left a line
        for path in sorted(folder.glob(_ANY)):
            for record in _records(path):
                self.has_begun = True
                if record["status"] != STARTED:
                    names.append(hash(record["name"]))
                    times.append(record["at"])
                    makers.append(_maker(record))
                elif record["at"] >= newest and _sums(record) != (call.model, call.settings):
                    newest, self.other = record["at"], record
        self._call = call
        keys, makers = np.array(names, np.int64), np.array(makers, np.int64)
        order = np.lexsort((np.arange(len(keys)), np.array(times), keys))
        last = np.flatnonzero(np.append(np.diff(keys[order]) != 0, True)) if len(keys) else order
        self._names, self._makers = keys[order][last], makers[order][last]

    def __len__(self) -> int:
        return len(self._names)

    def made(self, name: str, source: str) -> bool | None:
        """Whether this model and these settings made the results from this file.

        None: no record has the name.
        """
        place = int(np.searchsorted(self._names, hash(name)))
        if place == len(self._names) or self._names[place] != hash(name):
            return None
        sums = {"model": self._call.model, "settings": self._call.settings}
        mine = ({"status": OK, **sums}, {"status": KEPT})
        return int(self._makers[place]) in [_maker({"input": source, **record}) for record in mine]

    def difference(self) -> str:
        """What the last call of another kind had otherwise, in words; "" if there is none."""
        if self.other is None:
            return ""
        mine, theirs = self._call.choices, self.other.get("choices", {})
        found = [
            f"{key} {theirs.get(key)!r} instead of {mine.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        if self.other.get("model") != self._call.model:
            found.insert(0, f"another model ({self.other.get('checkpoint', 'unknown')})")
        return ", ".join(found)


def results(folder: Path) -> set[str]:
    """The names below `folder` of all results that its manifests list."""
    return {name for path in folder.glob(_ANY) for r in _records(path) for name in r["outputs"]}


def _sums(record: dict[str, Any]) -> tuple[Any, Any]:
    return record.get("model"), record.get("settings")


def _maker(record: dict[str, Any]) -> int:
    return hash((record.get("input"), record.get("status"), *_sums(record)))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a manifest, line by line; the last one may be cut.

    Raises:
      UserError: the file cannot be read, or another line is not a record.
    """
    at = 0.0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                    if record["status"] == STARTED:
                        at = datetime.datetime.fromisoformat(record["time"]).timestamp()
                    elif not isinstance(record["name"], str):
                        raise TypeError
                    yield {"outputs": [], **record, "at": at}
                except (ValueError, KeyError, TypeError) as error:
                    if not line.endswith(b"\n"):
                        return
                    raise UserError(
                        f"{path}, line {number}: not a record; remove the line, or the file (then "
                        "--skip-existing goes by the results alone)."
                    ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
