"""A data set at an address such as s3://bucket/camvid: copied once, then read as a folder."""

import functools
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastfcn_jax import addresses, files
from fastfcn_jax.errors import UserError

THREADS = 8


@functools.cache  # the train and val splits ask for the same root, one after the other
def folder_of(root: str) -> str:
    """The folder of `data.root`: itself, or the copy of what is at an address.

    The copy is below `$XDG_CACHE_HOME/fastfcn_jax/data` (`~/.cache/…`). A file that is there with
    the size of the original is not copied again, so that an interrupted copy goes on; one that is
    no longer at the address is deleted. A change that keeps the size is not noticed, and none where
    sizes are not known (https://…).

    Raises:
      UserError: there is no file at the address, it cannot be read, or the copy cannot be written;
        or a name there leads out of the copy.
    """
    root = addresses.local(root)
    if not addresses.is_address(root):
        return root
    base = addresses.place(root)
    entries = {path: about["size"] for path, about in addresses.below(root).items()}
    if not entries:
        raise UserError(f"data.root {root}: no files there.")
    name = hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:16]
    copy = files.cache_folder() / "data" / name
    targets = {path: copy / _below(root, os.path.relpath(path, base)) for path in entries}
    missing = [path for path, to in targets.items() if not _is_copied(to, entries[path])]
    if missing:
        total = sum(entries[path] or 0 for path in missing) / 1e6
        print(f"{root}: copying {len(missing)} files, {total:.0f} MB, to {copy}", file=sys.stderr)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda path: _fetch(root, path, targets[path]), missing))
    for path in set(copy.rglob("*")) - set(targets.values()):
        # Else a photograph that was taken out there would still be trained on. Hidden files may be
        # those that another process is copying.
        if path.is_file() and not path.name.startswith("."):
            path.unlink(missing_ok=True)
    return str(copy)


def _below(root: str, place: str) -> str:
    """The place of a file below the root; a bucket may hold names with `..`."""
    if place.split(os.sep)[0] == os.pardir:
        raise UserError(f"data.root {root}: the name {place} leads out of it.")
    return place


def _is_copied(path: Path, size: int | None) -> bool:
    """Whether the copy is there; size: of the original, None if that is not known."""
    return path.is_file() and size in (None, path.stat().st_size)


def _fetch(root: str, path: str, target: Path) -> None:
    files.make_cached(target.parent)
    with files.replacing(target) as temporary:
        addresses.copy(addresses.beside(root, path), temporary)
