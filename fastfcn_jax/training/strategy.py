"""How the pure step runs on the devices at hand: `jax.pmap`, or `jax.jit` over sharded arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastfcn_jax.errors import UserError

AXIS = "batch"


@dataclass(frozen=True)
class Strategy:
    """One way to spread a batch over devices, with the state replicated on all of them.

    name: "pmap" (one process) or "jit" (any number of processes).
    devices: all devices of all processes; the batch is split over them in equal shards.
    """

    name: str
    devices: tuple[Any, ...]  # of jax.Device

    @property
    def axis_name(self) -> str | None:
        """The mapped axis that the step and BatchNorm sum over; None where arrays are global."""
        return AXIS if self.name == "pmap" else None

    @property
    def shards(self) -> int:
        """Shards within the array that the step sees."""
        return 1 if self.name == "pmap" else len(self.devices)

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def compile(self, train_step: Callable) -> Callable:
        """Wraps `train_step(state, batch)`; the old state's buffers become the new one's."""
        if self.name == "pmap":
            # in_axes None for the state keeps it without a leading device axis. The step sums
            # all it returns over the axis, so device 0's copy (out_axes None) is everyone's.
            return jax.pmap(
                train_step,
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=self.devices,
                donate_argnums=0,
            )
        return jax.jit(train_step, donate_argnums=0, out_shardings=self._replicated)

    def put_state(self, state: Any) -> Any:
        """Copies a tree of host or device arrays to every device."""
        return jax.tree.map(self._put_replicated, state)

    def put_batch(self, batch: Mapping[str, np.ndarray], *, accumulate: int = 1) -> dict[str, Any]:
        """Spreads this process's part of a batch over its devices.

        With `accumulate` above 1 the leading axis counts micro-batches and the
        second one is split.
        """
        return {name: self._put_sharded(x, accumulate > 1) for name, x in batch.items()}

    @property
    def _replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def _put_replicated(self, x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, self._replicated, lambda index: x[index])

    def _put_sharded(self, x: np.ndarray, stacked: bool):
        if self.name == "pmap":
            if stacked:
                x = x.reshape(len(x), len(self.devices), -1, *x.shape[2:]).swapaxes(0, 1)
            else:
                x = x.reshape(len(self.devices), -1, *x.shape[1:])
            return jax.device_put(x, NamedSharding(self.mesh, PartitionSpec(AXIS)))
        spec = PartitionSpec(None, AXIS) if stacked else PartitionSpec(AXIS)
        return jax.make_array_from_process_local_data(NamedSharding(self.mesh, spec), x)


def choose(name: str, batch_size: int) -> Strategy:
    """The strategy called "pmap", "jit" or "auto" (pmap in one process, jit across several).

    Raises:
      UserError: the batch cannot be split evenly, or pmap is asked of several processes.
    """
    devices = tuple(jax.devices())
    if batch_size % len(devices):
        raise UserError(
            f"config.train.batch_size={batch_size} cannot be split evenly over {len(devices)} "
            f"devices; take a multiple of {len(devices)}."
        )
    if name == "pmap" and jax.process_count() > 1:
        raise UserError("config.train.strategy='pmap' is for one process; use 'jit' or 'auto'.")
    if name == "auto":
        name = "pmap" if jax.process_count() == 1 else "jit"
    return Strategy(name, devices)


def to_host(tree: Any) -> Any:
    """Replicated device arrays copied to NumPy arrays, without communication.

    A copy, not a view: the next step reuses the buffers.
    """
    return jax.tree.map(lambda x: np.array(x.addressable_data(0)), tree)
