"""How the pure step runs on the devices at hand: `jax.pmap`, or `jax.jit` of a `shard_map`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastfcn_jax.errors import UserError

AXIS = "batch"  # the mapped axis that the step and BatchNorm sum over


@dataclass(frozen=True)
class Strategy:
    """One way to spread a batch over devices, with the state replicated on all of them.

    name: "pmap" (one process) or "jit" (any number of processes).
    devices: all devices of all processes; the batch is split over them in equal shards.
    """

    name: str
    devices: tuple[Any, ...]  # of jax.Device

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def compile(self, train_step: Callable) -> Callable:
        """Wraps `train_step(state, batch)`; the old state's buffers become the new one's."""
        # The step sums all it returns over the axis, so that it is the same on every device.
        if self.name == "pmap":
            # in_axes None for the state keeps it without a leading device axis.
            return jax.pmap(
                train_step,
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=self.devices,
                donate_argnums=0,
            )
        mapped = jax.shard_map(
            lambda state, batch: train_step(state, jax.tree.map(lambda x: x[0], batch)),
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0)

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
        mine = len(self.mesh.local_devices)
        if stacked:
            x = x.reshape(len(x), mine, -1, *x.shape[2:]).swapaxes(0, 1)
        else:
            x = x.reshape(mine, -1, *x.shape[1:])
        return jax.make_array_from_process_local_data(
            NamedSharding(self.mesh, PartitionSpec(AXIS)), x
        )


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
