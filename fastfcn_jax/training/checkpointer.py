"""Saves and restores the checkpoints of a training run."""

import functools
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np

from fastfcn_jax import files, runtime, stored
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.checkpoints.model_folder import (
    FORMAT,
    best_step,
    finished_steps,
    step_folder,
    verify,
    warn_of,
)
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.errors import UserError
from fastfcn_jax.training.state import TrainState


class Restored(NamedTuple):
    """A training state on the host and the notes saved with it."""

    state: TrainState
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training run: the latest two, the best, and multiples of `keep_every`.

    `save` returns once the state is copied; a thread writes it and renames the
    finished folder into place, so that a crash at any moment leaves only complete
    checkpoints. All processes must call every method; process 0 writes.

    `save`, `wait` and `close` raise UserError if the disk is full or cannot be
    written.
    """

    def __init__(self, workdir: Path, *, keep_every: int = 0):
        self.folder = workdir.absolute() / "checkpoints"
        orbax_store.check_name(self.folder)
        self._policy = orbax_store.keep_latest_and_best(keep_every)
        self._read_back = False

    @functools.cached_property
    def _manager(self) -> Any:
        # Opened late: Orbax would fail on damaged files that `restore_latest` moves away first.
        return orbax_store.open_manager(self.folder, self._policy)

    def save(
        self, state: TrainState, *, miou: float | None = None, notes: dict[str, Any] | None = None
    ) -> None:
        """Saves a host copy of the state under its step, in the background.

        If there is a checkpoint of that step, it is kept and only its `miou` is set. The first
        checkpoint of this process is written at once and read back to test the disk.
        """
        step = int(state.step)
        try:
            if step in self._manager.all_steps():
                self._score(step, miou)
                return
            self._sweep()
            meta = {"format": FORMAT, "step": step, "notes": notes or {}}
            orbax_store.write(self._manager, step, _items(state), meta, miou=miou)
        except Exception as error:
            raise files.unwritable(self.folder, error) from error
        if not self._read_back:
            self.wait()
            runtime.together(lambda: self._verify(step))
            self._read_back = True

    def restore_latest(self, template: TrainState) -> Restored | None:
        """Restores the latest intact checkpoint; returns None if nothing has been saved yet.

        Warns of damaged checkpoints and, if an intact one is found, moves them to
        `damaged_checkpoints/`.

        Args:
          template: a state with the expected structure and shapes.

        Raises:
          UserError: an intact checkpoint does not fit the template, or all are damaged.
        """
        workdir, restored, damaged = self.folder.parent, None, {}
        for step in reversed(finished_steps(workdir)):
            try:
                fault = ""
                if restored is None:
                    restored = restore(workdir, step, template)
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
        if restored is None and damaged:
            step, fault = next(iter(damaged.items()))
            raise UserError(
                f"none of the {len(damaged)} checkpoints in {self.folder} can be read; step "
                f"{step}: {fault}. Nothing was changed: repair the disk or restore a copy; "
                "to start over, move the folder away or choose another --workdir."
            )
        if jax.process_index() == 0:
            self._tidy(damaged)
        _barrier("damaged checkpoints moved away")
        return restored

    @property
    def latest(self) -> int | None:
        """Step of the latest finished checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest validated mIoU."""
        self.wait()
        return best_step(self.folder.parent)

    def wait(self) -> None:
        """Waits until everything saved is on the disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise files.unwritable(self.folder, error) from error

    def close(self) -> None:
        self._sweep()
        self._manager.close()

    def _sweep(self) -> None:
        """Waits for the save under way and removes what it has replaced."""
        self.wait()
        if jax.process_index() == 0:
            orbax_store.sweep(self.folder)

    def _score(self, step: int, miou: float | None) -> None:
        if miou is None:
            return
        self.wait()
        if jax.process_index() == 0:
            try:
                orbax_store.set_score(self.folder / str(step), miou)
            except Damaged as damage:  # damaged since it was restored
                warn_of(self.folder / str(step), damage)
        _barrier("scored a checkpoint")
        self._manager.reload()

    def _verify(self, step: int) -> None:
        if jax.process_index() > 0:
            return
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


def restore(workdir: Path, step: int, template: TrainState) -> Restored:
    """Reads the training state of one checkpoint.

    Raises:
      Damaged: something is unreadable or differs from what was written.
      UserError: the state does not fit the template.
    """
    folder = step_folder(workdir, step)
    wanted = _items(template)
    items = {name: orbax_store.read_item(folder, name) for name in wanted}
    for name, tree in items.items():
        _check_fit(folder, tree, wanted[name])
    model, training = items["model"], items["training"]
    opt_state = flax.serialization.from_state_dict(template.opt_state, training["opt_state"])
    averaged = template.ema is not None
    state = TrainState(
        step=training["step"],
        params=training["params"] if averaged else model["params"],
        batch_stats=model["batch_stats"],
        opt_state=opt_state,
        ema=model["params"] if averaged else None,
    )
    notes = orbax_store.read_meta(folder)["notes"]
    if wrong := stored.fault(notes, {"pending": _columns}, "notes"):
        raise Damaged(f"meta: {wrong}")
    return Restored(state, notes)


def _columns(pending: Any) -> str:
    """Says why `metrics_log.Meter` cannot resume from the metrics in `pending`; "" if it can."""
    if not isinstance(pending, dict) or not all(isinstance(x, list) for x in pending.values()):
        return "must be lists of numbers by name"
    lacking = {"finite", "learning_rate", "loss"} - pending.keys() if pending else ()
    if lacking or len({len(column) for column in pending.values()}) > 1:
        return "is not complete"
    return ""


def checksums(state: TrainState) -> dict[str, str]:
    """The checksum of each item in a checkpoint of this state."""
    return {name: orbax_store.checksum(tree) for name, tree in _items(state).items()}


def _items(state: TrainState) -> dict[str, Any]:
    """Splits the state into the items `model` (for prediction) and `training`, as NumPy arrays."""
    training = {"opt_state": flax.serialization.to_state_dict(state.opt_state), "step": state.step}
    if state.ema is not None:
        training["params"] = state.params
    return {"model": _host(state.variables), "training": _host(training)}


def _check_fit(folder: Path, got: Any, wanted: Any) -> None:
    shapes = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (got, wanted))
    ]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in shapes[0].keys() | shapes[1].keys()
                       if shapes[0].get(name) != shapes[1].get(name))  # fmt: skip
        raise UserError(
            f"{folder} does not fit the configured model: {len(names)} arrays differ, "
            f"the first is {names[0]}; use the configuration it was trained with or a new workdir."
        )


def _host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
