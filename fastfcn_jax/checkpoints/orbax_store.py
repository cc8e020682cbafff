"""Stores named trees of arrays with Orbax: atomically, with checksums and a retention policy."""

import asyncio
import functools
import glob
import json
import logging
import math
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from fastfcn_jax import files
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line, unwritable

METRIC = "mIoU"
UNFINISHED = ".orbax-checkpoint-tmp"  # part of a folder's name while Orbax writes it
# Where Orbax puts what it no longer keeps, in one move: a kill while it deletes file by file would
# leave what looks like a damaged checkpoint.
DELETING = "deleting"
URI_SCHEMES = ("gs", "s3", "az", "hf")  # Orbax takes the path /gs/… for the address gs://…

# Orbax logs a traceback of errors that it also raises, and asyncio one of exceptions that Orbax
# never retrieved. Both would precede our one-sentence message.
absl_logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


def _without_late_reports(call_soon_threadsafe: Any) -> Any:
    # When one write fails on a full disk, Orbax closes the event loop to which TensorStore still
    # reports the other writes. TensorStore would print a traceback for each failed report.
    @functools.wraps(call_soon_threadsafe)
    def call(loop, *arguments, **keywords):
        if loop.is_closed():
            return None
        return call_soon_threadsafe(loop, *arguments, **keywords)

    return call


asyncio.BaseEventLoop.call_soon_threadsafe = _without_late_reports(
    asyncio.BaseEventLoop.call_soon_threadsafe
)


def _in_folder(glob_of_any: Any) -> Any:
    # etils interprets the folder's own name as part of the pattern. In a folder named "[a]", Orbax
    # would find no files to merge and finish a checkpoint without arrays; in one named "a*", it
    # would find the files of another run.
    @functools.wraps(glob_of_any)
    def call(folder: Any, pattern: str) -> Iterator[Any]:
        if glob.escape(str(folder)) == str(folder):
            yield from glob_of_any(folder, pattern)
        else:
            yield from (folder / name for name in glob.glob(pattern, root_dir=folder))

    return call


_LocalPath: Any = type(epath.Path("/"))
_LocalPath.glob = _in_folder(_LocalPath.glob)


class Damaged(Exception):
    """A checkpoint is unreadable or differs from what was written."""


def keep_all() -> Any:
    """A retention policy for `open_manager` that never deletes anything."""
    return preservation.PreserveAll()


def keep_latest_and_best(every: int = 0) -> Any:
    """Keeps the latest two, the one with the highest mIoU, and multiples of `every` (0: none).

    Orbax's own `max_to_keep` with `best_fn` would delete the latest checkpoint.
    """
    policies = [
        preservation.LatestN(2),  # two, in case the latest turns out to be damaged
        preservation.BestN(get_metric_fn=_miou, n=1, keep_checkpoints_without_metrics=False),
    ]
    if every:
        policies.append(preservation.EveryNSteps(every))
    return preservation.AnyPreservationPolicy(policies)


def open_manager(folder: Path, policy: Any) -> ocp.CheckpointManager:
    """Opens a checkpoint manager on a folder, creating the folder if needed; for process 0 alone.

    Raises:
      UserError: the folder cannot be written, or has a name that Orbax cannot handle.
    """
    check_name(folder)
    # With more processes Orbax would let all devices wait for each other, in a thread that runs
    # beside the training step, which does the same.
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_miou,  # without it Orbax saves no metrics; the policy decides what is kept
        best_mode="max",
        cleanup_tmp_directories=True,
        create=False,
        todelete_subdir=DELETING,
        multiprocessing_options=alone,
    )
    handlers = {
        "model": _arrays(alone),
        "training": _arrays(alone),
        "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)
    except Exception as error:
        raise unwritable(folder, error) from error


def _arrays(alone: ocp.options.MultiprocessingOptions) -> ocp.PyTreeCheckpointHandler:
    # Compressing float32 weights takes a second of processor time for 400 MB and saves a tenth.
    # Orbax's own copy of the arrays is for callers that change them while they are written.
    numpy = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
    return ocp.PyTreeCheckpointHandler(
        use_compression=False,
        multiprocessing_options=alone,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((np.ndarray, numpy)),
    )


def check_name(folder: Path) -> None:
    """Raises UserError for a folder name with which Orbax loses or misplaces checkpoints."""
    text, parts = str(folder), folder.absolute().parts
    fault = ""
    if "\\" in text:
        fault = "a backslash"
    elif any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        fault = "a character that is not UTF-8"
    elif set(parts[1:2]) & set(URI_SCHEMES) or set(parts) & {f"{s}:" for s in URI_SCHEMES}:
        fault = "the form of a cloud storage address"
    if fault:
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise UserError(
            f"{shown}: checkpoints cannot be stored in a folder whose path has {fault}; "
            "choose another folder."
        )


def write(
    manager: ocp.CheckpointManager,
    step: int,
    items: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    miou: float | None = None,
) -> None:
    """Writes trees of NumPy arrays and plain values `meta` as one checkpoint.

    Orbax's threads may still be writing the arrays, which must not change until
    `manager.wait_until_finished()` has returned.
    """
    checksums = {name: checksum(tree) for name, tree in items.items()}
    noted = signed({**meta, "checksums": checksums, "score": miou})
    saves: dict[str, Any] = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
    arguments = ocp.args.Composite(**saves, meta=ocp.args.JsonSave(noted))
    metrics = None if miou is None else {METRIC: miou}
    manager.save(step, args=arguments, metrics=metrics, force=True)


def read_item(folder: Path, item: str) -> dict:
    """Reads one item of a checkpoint as a tree of NumPy arrays.

    Raises:
      Damaged: it is unreadable or differs from what was written.
    """
    recorded = read_meta(folder)["checksums"].get(item)
    place: Any = folder / item  # Orbax annotates etils' path type
    try:
        handler = ocp.PyTreeCheckpointHandler()
        saved = handler.metadata(place).tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        tree = handler.restore(
            place, args=ocp.args.PyTreeRestore(item=saved, restore_args=arguments)
        )
    except Exception as error:  # Orbax, TensorStore and json raise many types for damaged files
        raise Damaged(f"{item}: {first_line(error)}") from error
    if checksum(tree) != recorded:
        raise Damaged(f"{item}: its checksum differs from the one saved")
    return tree


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads `meta` of a checkpoint.

    Returns:
      A dict of "checksums" (by item), "notes" (as given to `write`) and "score" (mIoU or None).

    Raises:
      Damaged: it is missing, invalid, or differs from what was written.
    """
    try:
        meta = json.loads((folder / "meta" / "metadata").read_bytes())
        signature = meta.pop("signature", None)
        if "score" not in meta and signature is None:  # earlier versions: only in Orbax's file
            meta["score"] = _kept_score(folder)
        elif signature != signed(meta)["signature"]:
            raise ValueError("its signature differs from the one saved")
        notes, checksums = meta.setdefault("notes", {}), meta["checksums"]
        if not isinstance(notes, dict) or not isinstance(checksums, dict) or not checksums:
            raise ValueError("notes or checksums are missing")
        return meta
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"meta: {first_line(error)}") from error


def sweep(folder: Path) -> None:
    """Removes what a folder of checkpoints no longer keeps, and what a kill left unfinished."""
    for path in [folder / DELETING, *folder.glob(f"*{UNFINISHED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def set_score(folder: Path, miou: float) -> None:
    """Adds an mIoU to a checkpoint that was written before the evaluation finished."""
    meta = read_meta(folder)
    files.write_json(folder / "meta" / "metadata", signed({**meta, "score": miou}))
    repair_score(folder)


def repair_score(folder: Path) -> bool:
    """Copies the score in `meta` to the file that Orbax reads; returns whether they differed.

    Raises:
      Damaged: `meta` cannot be read.
    """
    wanted = read_meta(folder)["score"]
    try:
        if _kept_score(folder) == wanted:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        pass
    kept = folder / "metrics"
    if wanted is None:
        shutil.rmtree(kept)
    else:
        kept.mkdir(exist_ok=True)
        files.write_json(kept / "metrics", {METRIC: wanted})
    return True


def _kept_score(folder: Path) -> float | None:
    """The score in the file that Orbax reads; None if there is none."""
    path = folder / "metrics" / "metrics"
    if not path.parent.is_dir():
        return None
    score = float(json.loads(path.read_bytes())[METRIC])
    if not math.isfinite(score):
        raise ValueError(f"{METRIC} is {score}")
    return score


def signed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a CRC-32 of the content: a flipped bit may leave JSON that still parses."""
    rest = {name: value for name, value in meta.items() if name != "signature"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "signature": f"{zlib.crc32(text.encode()):08x}"}


def checksum(tree: Any) -> str:
    """CRC-32 over names, types, shapes and bytes; storage does not report flipped bits."""
    checksum = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        head = f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}"
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data, zlib.crc32(head.encode(), checksum))
    return f"{checksum:08x}"


def _miou(metrics: dict[str, float]) -> float:
    return metrics[METRIC]
