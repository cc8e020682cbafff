"""Checkpoint folders: saving, restoring, and loading a model from one.

A folder is `DIR/model.json` (configuration, classes, palette, preprocessing, versions) and
`DIR/checkpoints/<step>/` with the items `model` (what prediction needs), `training` (what only
resuming needs; absent in converted weights) and `meta` (checksums and the loop's own notes).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import config as configuration
from fastfcn_jax import storage
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.storage import Damaged, read_item, write_json
from fastfcn_jax.training.state import TrainState

__all__ = [
    "Checkpoints",
    "Damaged",
    "LoadedModel",
    "Restored",
    "checksums",
    "finished_steps",
    "load_model",
    "model_card",
    "read_card",
    "read_item",
    "restore",
    "save_model",
    "verify",
    "write_json",
]

FORMAT = 1


class LoadedModel(NamedTuple):
    """A trained or converted model; `variables` holds "params" and "batch_stats", NumPy arrays."""

    config: ConfigDict
    info: DatasetInfo
    variables: dict[str, Any]
    step: int


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
        policy = storage.keep_latest_and_best(keep_every)
        self._manager = storage.open_manager(self.folder, policy)

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
            storage.write(self._manager, step, _items(state), meta, miou=miou)
        except Exception as error:
            raise storage.unwritable(self.folder, error) from error

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
                _warn(f"{self.folder / str(step)} is damaged and is skipped: {damage}")
                self._set_aside(step)
        return None

    @property
    def latest(self) -> int | None:
        """Step of the latest finished checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest validated mIoU."""
        return storage.best_step(self._manager)

    def wait(self) -> None:
        """Returns when everything saved is on the disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise storage.unwritable(self.folder, error) from error

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


def save_model(
    folder: Path, variables: dict[str, Any], model_card: dict[str, Any], *, step: int = 0
) -> None:
    """Writes a checkpoint folder that holds a model alone, as conversion makes it.

    Args:
      variables: "params" and "batch_stats", nested dicts of arrays.
      model_card: see `model_card`.

    Raises:
      UserError: the folder cannot be written or already holds this step.
    """
    folder = Path(folder)
    manager = storage.open_manager(folder.absolute() / "checkpoints", storage.keep_all())
    try:
        if step in manager.all_steps():
            raise UserError(f"{folder} already holds a checkpoint; give another output folder.")
        model = _host({key: variables[key] for key in ("params", "batch_stats")})
        storage.write(manager, step, {"model": model}, {"format": FORMAT, "step": step})
        manager.wait_until_finished()
        write_json(folder / "model.json", model_card)
    except (OSError, ValueError) as error:
        raise storage.unwritable(folder, error) from error
    finally:
        manager.close()


def load_model(folder: Path, which: str = "best") -> LoadedModel:
    """Loads the "best" (by validated mIoU, else the latest) or the "latest" model of a folder.

    Averaged weights (EMA) are what a run that keeps them returns. A damaged
    checkpoint is skipped with a warning for the next in line.

    Raises:
      UserError: the folder is not a checkpoint folder, or nothing in it is whole.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder.absolute() / "checkpoints"
    manager = storage.open_manager(path, storage.keep_all(), read=True)
    try:
        steps = sorted(manager.all_steps(), reverse=True)
        if which == "best" and (best := storage.best_step(manager)) is not None:
            steps = [best, *(step for step in steps if step != best)]
        for step in steps:
            try:
                variables = read_item(_folder(folder, step), "model")
            except Damaged as damage:
                _warn(f"{folder}/checkpoints/{step} is damaged and is skipped: {damage}")
                continue
            return LoadedModel(
                configuration.from_json(card["config"]), _info(card), variables, step
            )
    finally:
        manager.close()
    raise UserError(f"{folder}/checkpoints holds no whole checkpoint; train or convert one first.")


def finished_steps(workdir: Path) -> list[int]:
    """The steps of all finished checkpoints, rising."""
    folder = Path(workdir) / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def restore(workdir: Path, step: int, template: TrainState) -> Restored:
    """The training state of one checkpoint.

    Raises:
      Damaged: something cannot be read back as it was written.
      UserError: it does not fit the template.
    """
    folder = _folder(workdir, step)
    wanted = _items(template)
    items = {name: read_item(folder, name) for name in wanted}
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
    return Restored(state, storage.read_meta(folder)["notes"])


def verify(folder: Path, step: int) -> dict[str, str]:
    """Reads every array of a checkpoint; returns the checksum of each item.

    Raises:
      Damaged: something cannot be read back as it was written.
    """
    path = _folder(folder, step)
    checksums = storage.read_meta(path)["checksums"]
    for item in checksums:
        read_item(path, item)
    return checksums


def checksums(state: TrainState) -> dict[str, str]:
    """The checksum of each item that a checkpoint of this state has."""
    return {name: storage.checksum(tree) for name, tree in _items(state).items()}


def model_card(config: ConfigDict, info: DatasetInfo, versions: dict[str, str]) -> dict[str, Any]:
    """What `model.json` says of a model, so that prediction needs nothing but its folder."""
    from fastfcn_jax.models import segmentor

    return {
        "format": FORMAT,
        "config": configuration.to_json(config),
        "dataset": {
            "name": info.name,
            "class_names": list(info.class_names),
            "palette": np.asarray(info.palette).tolist(),
        },
        "preprocessing": {"mean": segmentor.MEAN, "std": segmentor.STD, "channels": "RGB"},
        "versions": versions,
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Reads `model.json`.

    Raises:
      UserError: it is missing, broken, or of a later format.
    """
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint folder: {path.name} is missing.")
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); write the folder anew.") from error
    if card.get("format") != FORMAT:
        raise UserError(f"{path} has format {card.get('format')}; this version reads {FORMAT}.")
    return card


def _folder(workdir: Path, step: int) -> Path:
    return Path(workdir).absolute() / "checkpoints" / str(step)


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


def _info(card: dict[str, Any]) -> DatasetInfo:
    data = card["dataset"]
    return DatasetInfo(
        data["name"], tuple(data["class_names"]), np.array(data["palette"], np.uint8)
    )


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _warn(text: str) -> None:
    if jax.process_index() == 0:
        print(f"warning: {text}", flush=True)
