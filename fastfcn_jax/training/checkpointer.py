"""The checkpoints of a training run: what is kept, and the state that training goes on from."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np

from fastfcn_jax import files
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.checkpoints.model_folder import FORMAT, step_folder, warn_of
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.errors import UserError
from fastfcn_jax.training.state import TrainState


class Restored(NamedTuple):
    """A training state on the host and the notes saved with it."""

    state: TrainState
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training run: the latest two, the best, and every n-th on request.

    Saving returns once the state is copied; a thread writes it and renames the
    finished folder into place, so that a crash at any moment leaves only whole
    checkpoints. All processes call every method; process 0 writes.

    Raises UserError from `save`, `wait` and `close` where the disk is full or
    cannot be written.
    """

    def __init__(self, workdir: Path, *, keep_every: int = 0):
        self.folder = workdir.absolute() / "checkpoints"
        policy = orbax_store.keep_latest_and_best(keep_every)
        self._manager = orbax_store.open_manager(self.folder, policy)

    def save(
        self, state: TrainState, *, miou: float | None = None, notes: dict[str, Any] | None = None
    ) -> None:
        """Saves a host copy of the state under its step, in the background.

        An existing checkpoint of that step is kept, unless it lacks the `miou` given now.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            if miou is None or self._manager.metrics(step) is not None:
                return
            self._manager.delete(step)
        meta = {"format": FORMAT, "step": step, "notes": notes or {}}
        try:
            orbax_store.write(self._manager, step, _items(state), meta, miou=miou)
        except Exception as error:
            raise files.unwritable(self.folder, error) from error

    def restore_latest(self, template: TrainState) -> Restored | None:
        """The latest checkpoint that is whole; None if there is none.

        Damaged ones are warned of and moved to `damaged_checkpoints/`.

        Args:
          template: a state of the structure and shapes to be restored.

        Raises:
          UserError: a checkpoint is whole but does not fit the template.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return restore(self.folder.parent, step, template)
            except Damaged as damage:
                warn_of(self.folder / str(step), damage)
                self._set_aside(step)
        return None

    @property
    def latest(self) -> int | None:
        """Step of the latest finished checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest validated mIoU."""
        return orbax_store.best_step(self._manager)

    def wait(self) -> None:
        """Returns when everything saved is on the disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise files.unwritable(self.folder, error) from error

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            aside = self.folder.parent / "damaged_checkpoints"
            aside.mkdir(exist_ok=True)
            target = aside / str(step)
            count = 1
            while target.exists():
                count += 1
                target = aside / f"{step}-{count}"
            (self.folder / str(step)).rename(target)
        _barrier("damaged checkpoint set aside")
        self._manager.reload()


def restore(workdir: Path, step: int, template: TrainState) -> Restored:
    """The training state of one checkpoint.

    Raises:
      Damaged: something cannot be read back as it was written.
      UserError: it does not fit the template.
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
    return Restored(state, orbax_store.read_meta(folder)["notes"])


def checksums(state: TrainState) -> dict[str, str]:
    """The checksum of each item that a checkpoint of this state has."""
    return {name: orbax_store.checksum(tree) for name, tree in _items(state).items()}


def _items(state: TrainState) -> dict[str, Any]:
    """The state's arrays as prediction's part and the rest, each a tree of NumPy arrays."""
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
