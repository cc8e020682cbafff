"""Lists the files of a folder, by one rule for every command that reads a folder."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".npy")
# What operating systems add to a user's folders, apart from names that begin with a dot.
_LEFT_BY_SYSTEMS = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
}
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


class Listing(NamedTuple):
    """Files sorted by path, and a sentence about each entry that cannot be read."""

    files: list[Path]
    unreadable: list[str]


def below(folder: Path, *, recursive: bool = True) -> Listing:
    """All files of a folder and, if `recursive`, of its sub-folders.

    Hidden entries are skipped silently: names that begin with a dot (`._x.jpg`,
    `.ipynb_checkpoints`) and what operating systems add (`__MACOSX`, `Thumbs.db`). Links to files
    and folders are followed, except a link to a folder that contains it. Such links, pipes,
    devices, broken links and folders without read permission are reported in `unreadable`.
    """
    found = Listing([], [])
    waiting = [(folder, ())]
    while waiting:
        inside = _collect(*waiting.pop(), found)
        waiting += inside if recursive else []
    found.files.sort()
    return found


def is_hidden(path: PurePath) -> bool:
    """Whether a part of a path (relative to the folder that the user named) is hidden."""
    return any(map(_is_hidden_name, path.parts))


def is_circular(path: Path) -> bool:
    """Whether a path passes through a folder twice, as a glob pattern does in a cycle of links."""
    folders = [os.path.realpath(folder) for folder in path.parents]
    return len(set(folders)) < len(folders)


def _is_hidden_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def _collect(folder: Path, above: tuple, found: Listing) -> list[tuple[Path, tuple]]:
    """Adds the files of one folder to `found`; returns its sub-folders, each with its parents.

    `above` holds (device, inode) of the folder's parents, to detect a cycle of links.
    """
    try:
        place = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        found.unreadable.append(f"{folder}: cannot be opened ({error.strerror})")
        return []
    here = (place.st_dev, place.st_ino)
    if here in above:
        found.unreadable.append(f"{folder}: a link to a folder that contains it")
        return []
    inside = []
    for path, mode in _entries(folder, names, found):
        if stat.S_ISREG(mode):
            found.files.append(path)
        elif stat.S_ISDIR(mode):
            inside.append((path, (*above, here)))
        else:
            kind = _KINDS.get(stat.S_IFMT(mode), "a device")
            found.unreadable.append(f"{path}: {kind}, not a file")
    return inside


def _entries(folder: Path, names: list[str], found: Listing) -> Iterator[tuple[Path, int]]:
    """Yields (path, mode) of all entries that are not hidden; links are followed."""
    for name in names:
        if _is_hidden_name(name):
            continue
        try:
            yield folder / name, os.stat(folder / name).st_mode
        except OSError as error:
            reason = "a broken link" if os.path.islink(folder / name) else error.strerror
            found.unreadable.append(f"{folder / name}: {reason}")
