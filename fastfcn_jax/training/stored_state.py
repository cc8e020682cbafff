"""The training state as named arrays, the way checkpoints hold it, and back."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np

from fastfcn_jax import stored
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.checkpoints.model_folder import step_folder
from fastfcn_jax.checkpoints.orbax_store import Damaged
from fastfcn_jax.errors import UserError
from fastfcn_jax.training.state import TrainState


class Restored(NamedTuple):
    """A training state on the host, the notes saved with it, and the file or folder it is from."""

    state: TrainState
    notes: dict[str, Any]
    source: Path


class HostCopy:
    """Host memory that holds one state after another.

    It stays allocated: the first use of fresh memory takes several times as long as the copying.
    """

    def __init__(self):
        self._state: TrainState | None = None

    def take(self, state: TrainState) -> TrainState:
        """Copies a replicated state into this memory, without communication; replaces the last."""
        if self._state is None:
            self._state = held = jax.tree.map(lambda x: np.array(_view(x)), state)
        else:
            held = self._state
            jax.tree.map(lambda old, new: np.copyto(old, _view(new)), held, state)
        return held


def _view(x: Any) -> np.ndarray:
    return np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x)


def items(state: TrainState) -> dict[str, Any]:
    """Splits the state into the items `model` (for prediction) and `training`, as NumPy arrays."""
    training = {"opt_state": flax.serialization.to_state_dict(state.opt_state), "step": state.step}
    if state.ema is not None:
        training["params"] = state.params
    return {"model": _host(state.variables), "training": _host(training)}


def checksums(state: TrainState) -> dict[str, str]:
    """The checksum of each item in a checkpoint of this state."""
    return {name: orbax_store.checksum(tree) for name, tree in items(state).items()}


def restore(workdir: Path, step: int, template: TrainState) -> Restored:
    """Reads the training state of one checkpoint.

    Raises:
      Damaged: something is unreadable or differs from what was written.
      UserError: the state does not fit the template.
    """
    folder = step_folder(workdir, step)
    wanted = items(template)
    found = {name: orbax_store.read_item(folder, name) for name in wanted}
    return assemble(found, orbax_store.read_meta(folder)["notes"], folder, template)


def assemble(
    found: dict[str, Any], notes: dict[str, Any], source: Path, template: TrainState
) -> Restored:
    """Puts the items of a checkpoint together, as `restore` does."""
    wanted = items(template)
    for name, tree in found.items():
        _check_fit(source, tree, wanted[name])
    model, training = found["model"], found["training"]
    opt_state = flax.serialization.from_state_dict(template.opt_state, training["opt_state"])
    averaged = template.ema is not None
    state = TrainState(
        step=training["step"],
        params=training["params"] if averaged else model["params"],
        batch_stats=model["batch_stats"],
        opt_state=opt_state,
        ema=model["params"] if averaged else None,
    )
    if wrong := stored.fault(notes, {"pending": _columns}, "notes"):
        raise Damaged(f"meta: {wrong}")
    return Restored(state, notes, source)


def _columns(pending: Any) -> str:
    """Says why `metrics_log.Meter` cannot resume from the metrics in `pending`; "" if it can."""
    if not isinstance(pending, dict) or not all(isinstance(x, list) for x in pending.values()):
        return "must be lists of numbers by name"
    lacking = {"finite", "learning_rate", "loss"} - pending.keys() if pending else ()
    if lacking or len({len(column) for column in pending.values()}) > 1:
        return "is not complete"
    return ""


def _check_fit(source: Path, got: Any, wanted: Any) -> None:
    shapes = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (got, wanted))
    ]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in shapes[0].keys() | shapes[1].keys()
                       if shapes[0].get(name) != shapes[1].get(name))  # fmt: skip
        raise UserError(
            f"{source} does not fit the configured model: {len(names)} arrays differ, "
            f"the first is {names[0]}; use the configuration it was trained with or a new workdir."
        )


def _host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)
