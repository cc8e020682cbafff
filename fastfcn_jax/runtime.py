"""Settings that must precede the first JAX computation: processes, compilation cache, determinism.

Also the exchange of plain values between the processes of a job.
"""

import hashlib
import itertools
import json
import os
import shutil
import stat
import threading
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax._src.clusters import cloud_tpu_cluster
from jax._src.clusters.cluster import ClusterEnv
from jax.experimental import multihost_utils

from fastfcn_jax import files
from fastfcn_jax.errors import UserError
from fastfcn_jax.relay import Relay

JOIN = 300  # seconds to wait until all processes of a job are there
ORTE = "OMPI_MCA_orte_hnp_uri"  # set by Open MPI up to version 4
MPI_VARIABLES = ("SIZE", "RANK", "LOCAL_RANK")
FIRST_PORT = 61440  # from here on JAX chooses ports as well
LONGEST = 30 * 24 * 3600  # seconds; `peers.watch` notices the loss of a process before
PIECE = 1 << 24  # bytes of each process that are exchanged at once

T = TypeVar("T")
_waits = itertools.count()  # the same in all processes
_relay: Relay | None = None  # what the first call of `join_processes` returned
UNUSED_GPU = (
    "there is an NVIDIA driver, but JAX runs on the CPU: pip install 'jax[cuda13]' (or cuda12, "
    "after the driver's version)"
)


def join_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> Relay | None:
    """Joins this process to the others of a job; does nothing for a single process.

    Without arguments, the settings of Slurm (`srun`), Open MPI (`mpirun`) or the hosts of Cloud
    TPUs are used; they also complete a `coordinator` alone. Must be called before the first JAX
    computation. A second call does nothing.

    Args:
      coordinator: "host:port" of process 0, reachable from all processes.
      num_processes: how many processes there are.
      process_id: index of this process, from 0.

    Returns:
      The way to process 0, for `peers.watch`; None in process 0 itself and for a single process.

    Raises:
      UserError: an argument is missing, or the processes cannot connect.
    """
    global _relay
    if jax.distributed.is_initialized():  # by an earlier command of this process
        return _relay
    if not _are_several(coordinator, num_processes, process_id):
        return None
    # The preemption service logs errors when process 0 is lost; `training.interrupt` does its work.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        # Detected here and not in `initialize`, which could not put a relay in between.
        with warnings.catch_warnings(action="ignore"):  # in Kubernetes it asks for a package
            address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
                *_by_open_mpi(os.environ, coordinator, num_processes, process_id), None, JOIN
            )
        _relay = relay = None if index == 0 else Relay(str(address))
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


def _are_several(*given: str | int | None) -> bool:
    """Whether this process is one of several, by the arguments of `join_processes` or without.

    Raises:
      UserError: some of the arguments are missing.
    """
    launched = launched_in_parallel(os.environ) or on_tpu_hosts()
    missing = None in given
    if missing and any(value is not None for value in given) and not (launched and given[0]):
        raise UserError(
            "--coordinator, --num_processes and --process_id go together: give all; under srun and "
            "mpirun the first is enough."
        )
    return launched or not missing


def launched_in_parallel(environment: Mapping[str, str]) -> bool:
    """Whether `srun` or `mpirun` started this process as one of several."""
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    return any(int(environment.get(name, 1)) > 1 for name in counts)


def on_tpu_hosts() -> bool:
    """Whether this is one of several hosts of Cloud TPUs."""
    environments = (cloud_tpu_cluster.GceTpuCluster, cloud_tpu_cluster.GkeTpuCluster)
    return any(found.is_env_present() and found.get_process_count() > 1 for found in environments)


def _by_open_mpi(
    environment: Mapping[str, str],
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> tuple[str | None, int | None, int | None, list[int] | None]:
    """Completes the arguments from what Open MPI 5 tells its processes; JAX knows version 4.

    The last value is this process's device. Returns the arguments themselves if all are given, or
    elsewhere.

    Raises:
      UserError: the processes are on several hosts, and only the user knows where process 0 is.
    """
    whole = None not in (coordinator, num_processes, process_id)
    if whole or "OMPI_COMM_WORLD_SIZE" not in environment or ORTE in environment:
        return coordinator, num_processes, process_id, None
    size, rank, local = (int(environment[f"OMPI_COMM_WORLD_{x}"]) for x in MPI_VARIABLES)
    if coordinator is None:
        if int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"]) < size:
            raise UserError(
                "Open MPI 5 does not say where process 0 is; add --coordinator HOST:PORT, its host "
                "and a free port there."
            )
        job = zlib.crc32(environment.get("PMIX_NAMESPACE", "").encode())
        coordinator = f"127.0.0.1:{FIRST_PORT + job % (65536 - FIRST_PORT)}"
    return coordinator, size, rank, [local]


def gather(text: str) -> list[str]:
    """Returns the text of every process, in order of process index; all must call this.

    It may hold file names that are not UTF-8.
    """
    kept = "surrogateescape"
    return [data.decode(errors=kept) for data in gather_bytes(text.encode(errors=kept))]


def gather_bytes(mine: bytes) -> list[bytes]:
    """Returns the bytes of every process, in order of process index; all must call this."""
    if jax.process_count() == 1:
        return [mine]
    split = np.array([len(mine) >> 24, len(mine) & 0xFFFFFF], np.int32)  # JAX has no int64 here
    told = multihost_utils.process_allgather(split).reshape(-1, 2)
    lengths = [(int(high) << 24) + int(low) for high, low in told]
    size = min(1 << max(*lengths, 255).bit_length(), PIECE)
    rows: list[list[bytes]] = [[] for _ in lengths]
    for start in range(0, max(lengths), size):
        piece = np.frombuffer(mine[start : start + size], np.uint8)
        padded = np.zeros(size, np.uint8)
        padded[: piece.size] = piece
        for row, got in zip(rows, multihost_utils.process_allgather(padded), strict=True):
            row.append(bytes(got))
    return [b"".join(row)[:length] for row, length in zip(rows, lengths, strict=True)]


def wait_for_all() -> None:
    """Waits until every process has called this, for hours if need be.

    On a CPU a collective operation gives up after 30 min, and a process that leaves waits 5 min for
    the others before JAX aborts it.
    """
    client = distributed.global_state.client
    if client is None:
        return
    failed = []

    def wait() -> None:
        try:
            client.wait_at_barrier(f"fastfcn_jax {next(_waits)}", LONGEST * 1000)
        except Exception as error:
            failed.append(error)

    # In a thread, because Ctrl-C would have no effect within the call.
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def agree(facts: Mapping[str, Any], job: str = "training") -> None:
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
                f"process {process} does not belong to the {job} of process 0, it has another "
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


def cache_compilations() -> Path | None:
    """Keeps compiled programs in a private folder, so that a second start need not compile.

    The folder is `$XDG_CACHE_HOME/fastfcn_jax/xla` (`~/.cache/...`), readable by its
    owner alone: whoever can write there can run code here. `JAX_COMPILATION_CACHE_DIR`
    overrides it; if empty, nothing is cached. Returns None if nothing is cached.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(given) if (given := os.environ["JAX_COMPILATION_CACHE_DIR"]) else None
    folder = files.cache_folder() / "xla"
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
