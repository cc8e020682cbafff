"""Named trees of arrays on the disk: atomic, checksummed, a policy for what is kept. By Orbax."""

import asyncio
import copy
import functools
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line, unwritable

METRIC = "mIoU"

# Orbax logs with a traceback what it also raises, and asyncio what Orbax did not look at; the
# exception is enough.
absl_logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


def _without_late_reports(call_soon_threadsafe: Any) -> Any:
    # Where a full disk ends one write, Orbax closes the event loop that TensorStore wants to tell
    # of the others; TensorStore prints a traceback for each refusal, before the error that matters.
    @functools.wraps(call_soon_threadsafe)
    def call(loop, *arguments, **keywords):
        if loop.is_closed():
            return None
        return call_soon_threadsafe(loop, *arguments, **keywords)

    return call


asyncio.BaseEventLoop.call_soon_threadsafe = _without_late_reports(
    asyncio.BaseEventLoop.call_soon_threadsafe
)


class Damaged(Exception):
    """A checkpoint that cannot be read back as it was written."""


def keep_all() -> Any:
    """A policy for `open_manager`: nothing is ever deleted."""
    return preservation.PreserveAll()


def keep_latest_and_best(every: int = 0) -> Any:
    """The latest two, the one of highest mIoU, and every multiple of `every` (0: none).

    Orbax's own `max_to_keep` with `best_fn` would delete the newest one.
    """
    policies = [
        preservation.LatestN(2),  # if the last one turns out damaged there is one before
        preservation.BestN(get_metric_fn=_miou, n=1, keep_checkpoints_without_metrics=False),
    ]
    if every:
        policies.append(preservation.EveryNSteps(every))
    return preservation.AnyPreservationPolicy(policies)


def open_manager(folder: Path, policy: Any, *, read: bool = False) -> ocp.CheckpointManager:
    """The manager of a folder of checkpoints; `read`: nothing in it is created or removed.

    Raises:
      UserError: the folder cannot be read or written.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_miou,  # with it alone are metrics written; what is kept, the policy decides
        best_mode="max",
        cleanup_tmp_directories=not read,
        create=not read,
        read_only=read,
    )
    try:
        return ocp.CheckpointManager(folder, options=options)
    except Exception as error:
        if read:
            raise UserError(f"{folder} cannot be read: {first_line(error)}.") from error
        raise unwritable(folder, error) from error


def write(
    manager: ocp.CheckpointManager,
    step: int,
    items: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    miou: float | None = None,
) -> None:
    """Writes trees of NumPy arrays and a `meta` of plain values as one checkpoint, in a thread."""
    checksums = {name: checksum(tree) for name, tree in items.items()}
    # A copy: training appends to its lists while the thread writes them.
    meta = {**copy.deepcopy(meta), "checksums": checksums}
    saves = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
    arguments = ocp.args.Composite(**saves, meta=ocp.args.JsonSave(meta))
    metrics = None if miou is None else {METRIC: miou}
    manager.save(step, args=arguments, metrics=metrics, force=True)


def read_item(folder: Path, item: str) -> dict:
    """Reads one item of a checkpoint as a tree of NumPy arrays.

    Raises:
      Damaged: it differs from what was written.
    """
    recorded = read_meta(folder)["checksums"].get(item)
    place: Any = folder / item  # annotated as a Path of another package
    try:
        handler = ocp.PyTreeCheckpointHandler()
        saved = handler.metadata(place).tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        tree = handler.restore(
            place, args=ocp.args.PyTreeRestore(item=saved, restore_args=arguments)
        )
    except Exception as error:  # Orbax, TensorStore and JSON raise a dozen kinds for broken files
        raise Damaged(first_line(error)) from error
    if checksum(tree) != recorded:
        raise Damaged(f"the checksum of {item} differs from the one saved")
    return tree


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads `meta` of a checkpoint; `checksums` by item, `notes` as they were given.

    Raises:
      Damaged: it is missing or broken.
    """
    place: Any = folder / "meta"
    try:
        meta = ocp.JsonCheckpointHandler().restore(place)
        return {"notes": {}, **meta, "checksums": dict(meta["checksums"])}
    except Exception as error:
        raise Damaged(first_line(error)) from error


def best_step(manager: ocp.CheckpointManager) -> int | None:
    """The step of highest mIoU among those that have one."""
    scored = [(manager.metrics(step), step) for step in manager.all_steps()]
    return max(((m[METRIC], step) for m, step in scored if m is not None), default=(0, None))[1]


def checksum(tree: Any) -> str:
    """CRC-32 over names, types, shapes and bytes: storage reports no flipped bit by itself."""
    checksum = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        head = f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}"
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data, zlib.crc32(head.encode(), checksum))
    return f"{checksum:08x}"


def _miou(metrics: dict[str, float]) -> float:
    return metrics[METRIC]
