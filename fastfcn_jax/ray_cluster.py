"""A Ray cluster as the place of work: joining it, and rows through actors that hold a model.

Placing, restarting and retrying are Ray's. What an actor returns for a row arrives here once.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line

CPUS = 4  # of an actor without a GPU, if its node has as many
RETRIES = 8  # of the rows that an actor held when it died
REFUSED = "refused"  # the column in which an actor says why it cannot work


class Workers(NamedTuple):
    """How many actors work, and what each of them gets."""

    count: int
    cpus: int
    gpus: int


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Yields the package `ray`, connected to the cluster at "HOST:PORT".

    "" stands for the cluster that `RAY_ADDRESS` names or that runs on this host; if there is none,
    Ray starts one here that ends with the call.

    Raises:
      UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else Ray hides all GPUs from actors without one, and says in each that this will change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it writes onto the terminal
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f'--ray needs {error.name}: pip install "fastfcn-jax[ray]", here and on every node.'
        ) from error
    was_joined = ray.is_initialized()
    if not was_joined:
        try:
            ray.init(
                address or None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--ray {address}: no cluster answers ({first_line(error)}); start one by "
                "ray start --head, or leave the address out."
            ) from error
    try:
        yield ray
    finally:
        if not was_joined:
            ray.shutdown()


def refuse(**flags: Any) -> None:
    """Raises UserError for flags that divide the work in another way than a cluster does."""
    for name, value in flags.items():
        if value is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--ray divides the work itself; leave --{flag} out.")


def workers(ray: Any, *, reads: bool) -> Workers:
    """One actor for each GPU of the cluster; without any, one for every few CPUs of each node.

    reads: leave a CPU of each node for Ray's own tasks, which read tables and shards. If the actors
      had all, nothing would ever be read.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus := int(sum(node.get("GPU", 0) for node in nodes)):
        # Without a CPU of their own if that took all: actors would never start, or nothing be read.
        return Workers(gpus, int(sum(node.get("CPU", 0) for node in nodes) > gpus), 1)
    counts = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not counts:
        raise UserError("--ray: no node of the cluster has a CPU; start them without --num-cpus=0.")
    free = [max(count - reads, 1) for count in counts]
    if reads and max(counts) == 1:
        raise UserError("--ray: tables and shards need a node with two CPUs, one of them to read.")
    cpus = min(CPUS, *free)
    return Workers(sum(count // cpus for count in free), cpus, 0)


def through(
    rows: Any, actor: type, arguments: Mapping[str, Any], given: Workers, *, batch: int
) -> Iterator[dict[str, Any]]:
    """Yields the rows that the actors return, each once, as they come.

    Args:
      rows: a Ray data set.
      actor: called with Arrow tables of up to `batch` rows; returns a dictionary of columns.
      arguments: of its constructor.

    Raises:
      UserError: an actor has refused to work, or died again and again on the same rows.
    """
    import ray.data  # pyright: ignore[reportMissingImports]
    import ray.exceptions  # pyright: ignore[reportMissingImports]

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the command has its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Ray 2.64 will rename the options of retries
        done = rows.map_batches(
            actor,
            fn_constructor_kwargs={**arguments, "given": given},
            batch_size=batch,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=given.count, initial_size=given.count
            ),
            num_cpus=given.cpus,
            num_gpus=given.gpus,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
    try:
        for table in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.to_pylist():
                if row[REFUSED]:
                    raise UserError(row[REFUSED])
                yield row
    except ray.exceptions.RayActorError as error:
        raise UserError(
            f"--ray: an actor died {RETRIES + 1} times on the same pictures "
            f"({first_line(error)}); Ray's logs have the reason."
        ) from error


def use_device(given: Workers) -> None:
    """Called in an actor before its first computation: the platform, and the number of threads."""
    import cv2
    import jax

    if not given.gpus:
        jax.config.update("jax_platforms", "cpu")
    threads = max(given.cpus, 1)
    os.environ["NPROC"] = str(threads)  # of XLA; else one for each core of the node
    cv2.setNumThreads(threads)


def stay_on_cpu() -> None:
    """Keeps this process, which only distributes, from taking the GPU of an actor beside it."""
    import jax

    jax.config.update("jax_platforms", "cpu")
