"""Settings that must precede the first JAX computation: processes, compilation cache, determinism.

Also the exchange of plain values between the processes of a training.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src.clusters.cluster import ClusterEnv
from jax.experimental import multihost_utils

from fastfcn_jax.errors import UserError
from fastfcn_jax.relay import Relay

JOIN = 300  # seconds to wait until all processes of a job are there

T = TypeVar("T")
UNUSED_GPU = (
    "there is an NVIDIA driver, but JAX runs on the CPU: pip install 'jax[cuda13]' (or cuda12, "
    "after the driver's version)"
)


def join_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> Relay | None:
    """Joins this process to the others of a training; does nothing for a single process.

    Without arguments, the settings of Slurm (`srun`) or Open MPI (`mpirun`) are
    used. Must be called before the first JAX computation.

    Args:
      coordinator: "host:port" of process 0, reachable from all processes.
      num_processes: how many processes train together.
      process_id: index of this process, from 0.

    Returns:
      The way to process 0, for `peers.watch`; None in process 0 itself and for a single process.

    Raises:
      UserError: only some of the three arguments are given, or the processes cannot connect.
    """
    given = [coordinator is not None, num_processes is not None, process_id is not None]
    if any(given) and not all(given):
        raise UserError("--coordinator, --num_processes and --process_id go together: give all.")
    if not all(given) and not launched_in_parallel(os.environ):
        return None
    # The preemption service logs errors when process 0 is lost; `training.interrupt` does its work.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        # Detected here and not in `initialize`, which could not put a relay in between.
        address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
            coordinator, num_processes, process_id, None, None, JOIN
        )
        relay = None if index == 0 else Relay(str(address))
        jax.distributed.initialize(
            relay.here if relay else address, count, index, devices, "deactivate", JOIN
        )
    except (RuntimeError, ValueError) as error:  # includes errors of the coordination service
        raise UserError(
            f"the processes did not find each other: {str(error).splitlines()[0]}; give all the "
            "same --coordinator and --num-processes, and each its own --process-id."
        ) from error
    # Set up the collectives while all processes are here: on CPU they time out after 30 s, which
    # a process that reads its data slowly would exceed later.
    multihost_utils.sync_global_devices("all processes have joined")
    return relay


def launched_in_parallel(environment: Mapping[str, str]) -> bool:
    """Whether `srun` or `mpirun` started this process as one of several."""
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    return any(int(environment.get(name, 1)) > 1 for name in counts)


def gather(text: str) -> list[str]:
    """Returns the text of every process, in order of process index; all must call this."""
    if jax.process_count() == 1:
        return [text]
    mine = text.encode()
    lengths = multihost_utils.process_allgather(np.array([len(mine)], np.int32))
    padded = np.zeros(1 << max(int(lengths.max()), 255).bit_length(), np.uint8)
    padded[: len(mine)] = np.frombuffer(mine, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [
        bytes(row[: int(length)]).decode()
        for row, length in zip(rows, lengths.ravel(), strict=True)
    ]


def agree(facts: Mapping[str, Any]) -> None:
    """Checks that all processes have the same `facts` (plain values by name).

    Raises:
      UserError: in every process, naming the facts that differ.
    """
    mine = json.dumps(facts, sort_keys=True)
    if len(set(gather(hashlib.sha256(mine.encode()).hexdigest()))) == 1:
        return
    everyone = [json.loads(text) for text in gather(mine)]
    for process, theirs in enumerate(everyone):
        differing = [
            f"{name} ({theirs.get(name)!r} instead of {everyone[0].get(name)!r})"
            for name in sorted(theirs.keys() | everyone[0].keys())
            if theirs.get(name) != everyone[0].get(name)
        ]
        if differing:
            raise UserError(
                f"process {process} does not belong to the training of process 0, it has another "
                f"{', another '.join(differing[:4])}; start all processes with the same command "
                "and the same installation."
            )


def together(action: Callable[[], T]) -> T:
    """Runs `action` in every process and fails in all of them if it fails in one.

    Otherwise the other processes would wait forever for one that has exited.

    Raises:
      UserError: `action` failed in another process. If it fails in this one, its own exception is
        raised.
    """
    try:
        result = action()
    except Exception as error:
        gather(str(error) or type(error).__name__)
        raise
    told = gather("")
    for process, text in enumerate(told):
        if text:
            raise UserError(f"process {process} has ended: {text}")
    return result


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/fastfcn_jax` (`~/.cache/...`); it may not exist yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastfcn_jax"


def cache_compilations() -> Path | None:
    """Keeps compiled programs in a private folder, so that a second start need not compile.

    The folder is `$XDG_CACHE_HOME/fastfcn_jax/xla` (`~/.cache/...`), readable by its
    owner alone: whoever can write there can run code here. `JAX_COMPILATION_CACHE_DIR`
    overrides it; if empty, nothing is cached. Returns None if nothing is cached.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(given) if (given := os.environ["JAX_COMPILATION_CACHE_DIR"]) else None
    folder = cache_folder() / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            return None
        folder.chmod(stat.S_IRWXU)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def has_unused_gpu() -> bool:
    """Whether there is an NVIDIA driver, but JAX computes on the CPU."""
    return jax.default_backend() == "cpu" and shutil.which("nvidia-smi") is not None


def make_deterministic() -> None:
    """Selects deterministic GPU kernels, at some cost in speed; CPU kernels always are.

    Which of them is fastest is still measured, once: jax keeps the choices beside the compiled
    programs (`cache_compilations`), or a second start might choose others, which round otherwise.
    `--xla_gpu_deterministic_ops` would not measure at all.

    XLA reads its flags once: must be called before `join_processes` and any computation.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "deterministic_ops" not in flags:
        chosen = "--xla_gpu_exclude_nondeterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{flags} {chosen}".strip()
