"""Copies of the training state on a disk of the host, beside the shared checkpoints."""

import copy
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fastfcn_jax import files, runtime
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line
from fastfcn_jax.training import stored_state
from fastfcn_jax.training.background import Background
from fastfcn_jax.training.state import TrainState
from fastfcn_jax.training.stored_state import Restored

KEPT = 2  # the latest ones: hosts that a kill caught at different moments still share one of them
BOOT = Path("/proc/sys/kernel/random/boot_id")  # differs between hosts, whatever they are called


class LocalCheckpoints:
    """The latest two states of a run, `ROOT/<run>/<step>.npz`; one process of each host writes.

    All processes must create it, and call `meet` and `restore`. A copy that cannot be written is
    warned of, and the training goes on: the shared checkpoints have what it needs.

    Args:
      root: a folder on a disk of this host; several runs may share it.
      run: names the run; copies of other runs are never restored.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, root: Path, run: str):
        self.folder = root.absolute() / run
        self._run = run
        self._background = Background("local save")
        self.writes = False
        self._fails = False
        self._shared: list[int] = []  # steps that every host has, in ascending order
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            place = self.folder.stat()
            host = BOOT.read_text() if BOOT.is_file() else socket.gethostname()
        except OSError as error:
            raise UserError(
                f"config.train.local_checkpoints={str(root)!r} cannot be written "
                f"({error.strerror}); set it to a folder on a disk of this host, or to ''."
            ) from error
        self._place = f"{host} {place.st_dev} {place.st_ino}"

    def meet(self, newest: int) -> None:
        """Learns which process writes on each host, and which steps all hosts have.

        Args:
          newest: step of the latest shared checkpoint, 0 if there is none.
        """
        mine = json.dumps([self._place, self.steps()])
        told = [json.loads(text) for text in runtime.gather(mine)]
        places = [place for place, _ in told]
        self.writes = places.index(self._place) == jax.process_index()
        had = [set(steps) for _, steps in told]
        self._shared = sorted(set.intersection(*had))
        best = max(set.union(*had), default=0)
        if best > newest and best not in self._shared and jax.process_index() == 0:
            lacking = next(process for process, steps in enumerate(had) if best not in steps)
            print(
                f"note: the host of process {lacking} has no local checkpoint of step {best}, "
                "which is left out",
                flush=True,
            )

    def steps(self) -> list[int]:
        """The steps of this host's copies, in ascending order."""
        stems = [path.stem for path in self.folder.glob("*.npz")]
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())

    def save(
        self, state: TrainState, notes: dict[str, Any] | None, before: Callable[[], None]
    ) -> None:
        """Writes a copy in the background, if this process `writes`.

        Args:
          state: host arrays that do not change before `wait` has returned.
          notes: as in `Checkpoints.save`, and so is `before`.
        """
        noted = copy.deepcopy(notes or {})
        self._background.start(lambda: self._save(state, noted, before))

    def wait(self) -> None:
        """Waits for the save in progress."""
        self._background.wait()

    def _save(self, state: TrainState, notes: dict[str, Any], before: Callable[[], None]) -> None:
        before()
        items = stored_state.items(state)
        sums = {name: orbax_store.checksum(tree) for name, tree in items.items()}
        meta = orbax_store.signed({"run": self._run, "checksums": sums, "notes": notes})
        arrays = {name: leaf for tree in _named(items).values() for name, leaf in tree.items()}
        try:
            self.folder.mkdir(exist_ok=True)
            with files.replacing(self._path(int(state.step))) as temporary:
                np.savez(temporary, meta=np.array(json.dumps(meta)), **arrays)
            for old in self.steps()[:-KEPT]:
                self._path(old).unlink(missing_ok=True)
            self._fails = False
        except (OSError, UserError) as error:
            if not self._fails:
                why = str(files.unwritable(self.folder, error)).partition("; ")[0].rstrip(".")
                print(f"warning: {why}; the training goes on without this copy", flush=True)
            self._fails = True

    def restore(self, template: TrainState, at_least: int) -> Restored | None:
        """The latest state that every host has intact, if it is not older than step `at_least`.

        Warns of damaged copies and of those of another run, and does not try them again.

        Raises:
          UserError: a copy does not fit the template.
        """
        while self._shared and self._shared[-1] >= at_least:
            step, fault, found = self._shared.pop(), "", None
            try:
                found = self._read(step, template)
            except Damaged as damage:
                fault = f"warning: {self._path(step)} is skipped: {damage}"
            faults = [text for text in runtime.gather(fault) if text]
            if not faults:
                return found
            if jax.process_index() == 0:
                print("\n".join(dict.fromkeys(faults)), flush=True)
        return None

    def _read(self, step: int, template: TrainState) -> Restored:
        path, wanted = self._path(step), stored_state.items(template)
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                arrays = {name: file[name] for name in file.files if name != "meta"}
            if meta["signature"] != orbax_store.signed(meta)["signature"]:
                raise ValueError("its signature differs from the one saved")
            run, sums, notes = meta["run"], meta["checksums"], meta["notes"]
        except Exception as error:  # zipfile and NumPy raise many types for damaged files
            raise Damaged(first_line(error)) from error
        if run != self._run:
            raise Damaged(f"it is of another run, {run}")
        named = _named(wanted)
        if differing := {name for tree in named.values() for name in tree} ^ arrays.keys():
            raise UserError(
                f"{path} does not fit the configured model: {len(differing)} arrays differ, the "
                f"first is {min(differing)}; use the configuration it was trained with or a new "
                "workdir."
            )
        found = {
            item: jax.tree.unflatten(jax.tree.structure(tree), [arrays[n] for n in named[item]])
            for item, tree in wanted.items()
        }
        for item, tree in found.items():
            if orbax_store.checksum(tree) != sums[item]:
                raise Damaged(f"{item}: its checksum differs from the one saved")
        return stored_state.assemble(found, notes, path, template)

    def begin(self, step: int) -> None:
        """Deletes copies of steps after `step`, which were not restored, and unfinished ones."""
        if self.writes:
            newer = [self._path(found) for found in self.steps() if found > step]
            for path in (*newer, *self.folder.glob(".*.npz")):
                path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises an error of a save that is not the disk's."""
        self._background.check()

    def close(self) -> None:
        self._background.wait()
        self._background.close()

    def discard(self) -> None:
        """Deletes all copies: those of a finished run serve nobody."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"{step}.npz"


def _named(items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The arrays of each item by a name that is unique in all of them, in the tree's order."""
    return {
        item: {
            f"{item}{jax.tree_util.keystr(path)}": leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for item, tree in items.items()
    }
