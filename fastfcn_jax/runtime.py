"""What is set before JAX computes anything: processes, compilation cache, determinism."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from fastfcn_jax.errors import UserError

T = TypeVar("T")


def join_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several that train together; does nothing for one alone.

    Without arguments several processes are found under Slurm (`srun`) and Open
    MPI (`mpirun`). To be called before the first JAX computation.

    Args:
      coordinator: "host:port" of process 0, reachable from all.

    Raises:
      UserError: some of the three arguments are given and others not.
    """
    given = [coordinator is not None, num_processes is not None, process_id is not None]
    if any(given) and not all(given):
        raise UserError("--coordinator, --num_processes and --process_id go together: give all.")
    if not all(given) and not launched_in_parallel(os.environ):
        return
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:  # among them what the coordination service says
        raise UserError(
            f"the processes did not find each other: {str(error).splitlines()[0]}; give all the "
            "same --coordinator and --num-processes, and each its own --process-id."
        ) from error
    # All have just met. Collectives on CPU wait only 30 s for the other side to set them up,
    # which a process that reads its data slowly would later miss.
    multihost_utils.sync_global_devices("all processes have joined")


def launched_in_parallel(environment: Mapping[str, str]) -> bool:
    """Whether `srun` or `mpirun` started this process as one of several."""
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    return any(int(environment.get(name, 1)) > 1 for name in counts)


def gather(text: str) -> list[str]:
    """What each process gave, in their order; all of them have to call it."""
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
    """Makes sure that all processes hold the same facts (plain values by name).

    Raises:
      UserError: in every process, naming those that differ.
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
                f"process {process} is not of the same training as process 0, it has another "
                f"{', another '.join(differing[:4])}; start all of them with one command on one "
                "installation."
            )


def together(action: Callable[[], T]) -> T:
    """Does `action` in every process; where it fails in one, all of them end.

    Without it the others would wait for one that has left.

    Raises:
      UserError: it failed in another process; here its own error is raised as it is.
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


def cache_compilations() -> Path | None:
    """Keeps compiled programs in a private folder, so that a second start need not compile.

    The folder is `$XDG_CACHE_HOME/fastfcn_jax/xla` (`~/.cache/...`), readable by its
    owner alone: who can write there can run code here. `JAX_COMPILATION_CACHE_DIR`
    overrides it, empty turns it off. None where there is no such folder to be had.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(given) if (given := os.environ["JAX_COMPILATION_CACHE_DIR"]) else None
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "fastfcn_jax" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            return None
        folder.chmod(stat.S_IRWXU)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def make_deterministic() -> None:
    """Bit-repeatable kernels on GPU, at some cost in speed; CPU kernels are so anyway.

    XLA reads its flags once: to be called before `join_processes` and any computation.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
