"""Runs the pure training step on all devices: `jax.pmap`, or `jax.jit` of a `shard_map`."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastfcn_jax.errors import UserError

AXIS = "batch"  # the mapped axis over which the step and BatchNorm sum
# XLA's default order on a CPU starts everything as early as it can: among others, what only the
# backward pass reads of the forward pass's maps, which doubles the step's temporary memory.
CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@dataclass(frozen=True)
class Strategy:
    """Data parallelism: splits a batch over devices and replicates the state on all of them.

    name: "pmap" (one process) or "jit" (any number of processes).
    devices: all devices of all processes; the batch is split over them in equal shards.
    """

    name: str
    devices: tuple[Any, ...]  # of jax.Device

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def compile(self, train_step: Callable) -> Callable:
        """Compiles `train_step(state, batch, numbers)`; donates the buffers of the old state."""
        options = compiler_options(self.devices[0].platform)
        jit = functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
        # The step sums its results over the axis, so they are equal on all devices (no out axis).
        if self.name == "pmap":
            # in_axes=None: the state and the numbers have no leading device axis.
            mapped = jax.pmap(
                train_step,
                axis_name=AXIS,
                in_axes=(None, 0, None),
                out_axes=None,
                devices=self.devices,
                donate_argnums=0,
            )
            # pmap takes no options. In a function of its own, or `lower` would still be pmap's.
            return jit(lambda *arguments: mapped(*arguments)) if options else mapped
        mapped = jax.shard_map(
            lambda state, batch, numbers: train_step(
                state, jax.tree.map(lambda x: x[0], batch), numbers
            ),
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jit(mapped)

    def put_state(self, state: Any) -> Any:
        """Copies a tree of host or device arrays to every device."""
        return jax.tree.map(self._put_replicated, state)

    def put_batch(self, batch: Mapping[str, np.ndarray], *, accumulate: int = 1) -> dict[str, Any]:
        """Splits this process's part of a batch over its devices.

        If `accumulate` is above 1, the leading axis indexes micro-batches and the
        second axis is split.
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


def compiler_options(platform: str) -> dict[str, str] | None:
    """XLA's options for a training step on "cpu", "gpu" or "tpu"."""
    return CPU_OPTIONS if platform == "cpu" else None


def choose(name: str, batch_size: int) -> Strategy:
    """The strategy called "pmap", "jit" or "auto" (pmap in one process, jit across several).

    Raises:
      UserError: the batch cannot be split evenly, or pmap is requested with several processes.
    """
    devices = tuple(jax.devices())
    if batch_size % len(devices):
        raise UserError(
            f"config.train.batch_size={batch_size} cannot be split evenly over {len(devices)} "
            f"devices; use a multiple of {len(devices)}."
        )
    if name == "pmap" and jax.process_count() > 1:
        raise UserError("config.train.strategy='pmap' is for one process; use 'jit' or 'auto'.")
    if name == "auto":
        name = "pmap" if jax.process_count() == 1 else "jit"
    return Strategy(name, devices)


def to_host(tree: Any) -> Any:
    """Copies replicated device arrays to NumPy arrays, without communication.

    The next step reuses the device buffers, so a view would change.
    """
    return jax.tree.map(lambda x: np.array(x.addressable_data(0)), tree)
