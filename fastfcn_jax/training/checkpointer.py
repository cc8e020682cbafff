"""Saves and restores the checkpoints of a training run."""

import copy
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from fastfcn_jax import files, runtime
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.checkpoints.model_folder import (
    FORMAT,
    best_step,
    finished_steps,
    verify,
    warn_of,
)
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import stored_state
from fastfcn_jax.training.background import Background
from fastfcn_jax.training.local_checkpoints import LocalCheckpoints
from fastfcn_jax.training.state import TrainState
from fastfcn_jax.training.stored_state import HostCopy, Restored


class Checkpoints:
    """The checkpoints of one training run: the latest two, the best, and multiples of `keep_every`.

    `save` only copies the state: a thread computes its checksums, writes it and renames the
    finished folder into place, so that a crash at any moment leaves only complete
    checkpoints. All processes must call every method but `check`; process 0 writes.

    `save`, `check`, `wait` and `close` raise UserError if the disk is full or cannot be
    written, also for the save before.
    """

    def __init__(
        self, workdir: Path, *, keep_every: int = 0, local: LocalCheckpoints | None = None
    ):
        """Opens the folder; `local` holds copies beside it, which are restored first."""
        self.folder = workdir.absolute() / "checkpoints"
        orbax_store.check_name(self.folder)
        self._policy = orbax_store.keep_latest_and_best(keep_every)
        self.local = local
        self._background = Background("save")
        self._copy, self._local_copy = HostCopy(), HostCopy()
        self._read_back = False

    @functools.cached_property
    def _manager(self) -> Any:
        # Opened late: Orbax would fail on damaged files that `restore_latest` moves away first.
        return orbax_store.open_manager(self.folder, self._policy)

    @functools.cached_property
    def _steps(self) -> set[int]:
        return set(self._seen())

    def _seen(self) -> list[int]:
        # What process 0 sees: on a shared file system, others may see the folder later.
        found = finished_steps(self.folder.parent)
        return json.loads(runtime.gather(json.dumps(found))[0])

    @property
    def _local_of_host(self) -> LocalCheckpoints | None:
        """The local checkpoints, if this is the process that writes them for its host."""
        return self.local if self.local is not None and self.local.writes else None

    def save(
        self,
        state: TrainState,
        *,
        miou: float | None = None,
        notes: dict[str, Any] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the state to the host and saves it under its step, in the background.

        If there is a checkpoint of that step, it is kept and only its `miou` is set. The first
        checkpoint of this process is written at once and read back to test the disk.

        Args:
          state: arrays of the devices or of the host, the same in all processes.
          notes: plain values; they may change once this has returned.
          before: called in the background before anything is written.
        """
        step = int(state.step)
        if step in self._steps:
            self._score(step, miou)
            return
        self._background.wait()  # both may still read the last copy
        if local := self._local_of_host:
            local.wait()
        if local or jax.process_index() == 0:
            state = self._copy.take(state)
        if local:
            local.save(state, notes, lambda: self._begin(before))
        if jax.process_index() == 0:
            # A copy, because training appends to the lists in `notes` while the thread writes them.
            meta = copy.deepcopy({"format": FORMAT, "step": step, "notes": notes or {}})
            self._background.start(lambda: self._write(state, step, meta, miou, before))
        self._steps.add(step)
        if not self._read_back:
            self.wait()
            self._read_back = True

    def save_locally(
        self, state: TrainState, *, notes: dict[str, Any] | None, before: Callable[[], None]
    ) -> None:
        """Saves the state on the disk of each host alone, if there are local checkpoints."""
        if local := self._local_of_host:
            local.wait()
            local.save(self._local_copy.take(state), notes, lambda: self._begin(before))

    def _begin(self, before: Callable[[], None]) -> None:
        # Whoever deletes this folder starts over; it says that local checkpoints are of this run.
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        before()

    def _write(
        self,
        state: TrainState,
        step: int,
        meta: dict[str, Any],
        miou: float | None,
        before: Callable[[], None],
    ) -> None:
        before()
        try:
            orbax_store.write(self._manager, step, stored_state.items(state), meta, miou=miou)
            self._manager.wait_until_finished()
            orbax_store.sweep(self.folder)
        except Exception as error:
            raise files.unwritable(self.folder, error) from error
        if not self._read_back:
            self._verify(step)

    def restore_latest(self, template: TrainState) -> Restored | None:
        """Restores the latest intact checkpoint; returns None if nothing has been saved yet.

        A local one is taken if it is not older than the latest shared one that is intact. Warns of
        damaged checkpoints and, if an intact one is found, moves them to `damaged_checkpoints/`.

        Args:
          template: a state with the expected structure and shapes.

        Raises:
          UserError: an intact checkpoint does not fit the template, or all are damaged.
        """
        workdir, restored, damaged = self.folder.parent, None, {}
        steps = self._seen() if self.local is not None else finished_steps(workdir)
        if self.local is not None:
            self.local.meet(steps[-1] if steps else 0)
        for step in reversed(steps):
            restored = restored or self._from_local(template, step)
            try:
                fault = ""
                if restored is None:
                    restored = stored_state.restore(workdir, step, template)
                else:
                    orbax_store.read_meta(self.folder / str(step))
            except Damaged as damage:
                fault = str(damage)
            told = runtime.gather(fault)
            if any(told) and not all(told):
                raise UserError(
                    f"{self.folder}/{step} can be read by some processes and not by others "
                    f"({max(told)}); check the shared file system and start again."
                )
            if fault:
                damaged[step] = fault
        restored = restored or self._from_local(template, 0)
        if restored is None and damaged:
            step, fault = next(iter(damaged.items()))
            raise UserError(
                f"none of the {len(damaged)} checkpoints in {self.folder} can be read; step "
                f"{step}: {fault}. Nothing was changed: repair the disk or restore a copy; "
                "to start over, move the folder away or choose another --workdir."
            )
        if jax.process_index() == 0:
            self._tidy(damaged)
        if self.local is not None:
            self.local.begin(0 if restored is None else int(restored.state.step))
        _barrier("damaged checkpoints moved away")
        return restored

    def _from_local(self, template: TrainState, at_least: int) -> Restored | None:
        return None if self.local is None else self.local.restore(template, at_least)

    @property
    def latest(self) -> int | None:
        """Step of the latest finished checkpoint."""
        return max(finished_steps(self.folder.parent), default=None)

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest validated mIoU."""
        self.wait()
        return best_step(self.folder.parent)

    def check(self) -> None:
        """Raises the error of a save that has failed meanwhile; does not wait."""
        self._background.check()
        if self.local is not None:
            self.local.check()

    def wait(self) -> None:
        """Waits until everything saved is on the disk."""
        runtime.together(self._background.wait)

    def close(self) -> None:
        self.wait()
        self._background.close()
        if self.local is not None:
            self.local.close()
        if jax.process_index() == 0:
            orbax_store.sweep(self.folder)
            if "_manager" in self.__dict__:
                self._manager.close()

    def _score(self, step: int, miou: float | None) -> None:
        if miou is None:
            return
        self.wait()
        runtime.together(lambda: self._set_score(step, miou))

    def _set_score(self, step: int, miou: float) -> None:
        if jax.process_index() > 0:
            return
        try:
            orbax_store.set_score(self.folder / str(step), miou)
            self._manager.reload()
        except Damaged as damage:  # damaged since it was restored
            warn_of(self.folder / str(step), damage)
        except Exception as error:
            raise files.unwritable(self.folder, error) from error

    def _verify(self, step: int) -> None:
        try:
            verify(self.folder.parent, step)
        except Damaged as damage:
            raise UserError(
                f"{self.folder}/{step} was just written and cannot be read back ({damage}); a "
                "training here could not be saved. Check the disk or choose another --workdir."
            ) from damage

    def _tidy(self, damaged: dict[int, str]) -> None:
        """Moves damaged checkpoints away and deletes unfinished ones.

        Orbax does not delete every unfinished folder of a killed process; they would fill the disk.
        """
        orbax_store.sweep(self.folder)
        for step, fault in damaged.items():
            warn_of(self.folder / str(step), Damaged(fault))
            aside = self.folder.parent / "damaged_checkpoints"
            aside.mkdir(exist_ok=True)
            names = (f"{step}-{count}" if count > 1 else str(step) for count in itertools.count(1))
            (self.folder / str(step)).rename(
                next(aside / name for name in names if not (aside / name).exists())
            )
        for step in finished_steps(self.folder.parent):
            if orbax_store.repair_score(self.folder / str(step)):
                print(f"warning: {self.folder}/{step}: repaired its damaged metrics file")


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
