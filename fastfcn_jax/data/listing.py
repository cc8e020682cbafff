"""Lists the files of a folder, by one rule for every command that reads a folder."""

import os
import stat
from collections.abc import Callable, Iterator
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
    """All files of a folder and, if `recursive`, of its sub-folders; see `walk`."""
    found = Listing([], [])
    for parent, names in walk(folder, found.unreadable.append, recursive=recursive):
        found.files.extend(parent / name for name in names)
    found.files.sort()
    return found


def walk(
    folder: Path, report: Callable[[str], None], *, recursive: bool = True
) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder with the sorted names of its files, parents first; memory for one folder.

    Hidden entries are skipped silently: names that begin with a dot (`._x.jpg`,
    `.ipynb_checkpoints`) and what operating systems add (`__MACOSX`, `Thumbs.db`). Links to files
    and folders are followed, except a link to a folder that contains it. Such links, pipes,
    devices, broken links and folders without read permission are told to `report`, a sentence each.
    """
    waiting = [(folder, ())]
    while waiting:
        here, above = waiting.pop()
        try:
            place = os.stat(here)
            mark = (place.st_dev, place.st_ino)
            if mark in above:  # by a cycle of links
                report(f"{here}: a link to a folder that contains it")
                continue
            files, folders = _entries(here, report)
        except OSError as error:
            report(f"{here}: cannot be opened ({error.strerror})")
            continue
        yield here, files
        if recursive:
            waiting += [(here / name, (*above, mark)) for name in reversed(folders)]


def is_hidden(path: PurePath) -> bool:
    """Whether a part of a path (relative to the folder that the user named) is hidden."""
    return any(map(_is_hidden_name, path.parts))


def is_circular(path: Path) -> bool:
    """Whether a path passes through a folder twice, as a glob pattern does in a cycle of links."""
    folders = [os.path.realpath(folder) for folder in path.parents]
    return len(set(folders)) < len(folders)


def _is_hidden_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def _entries(folder: Path, report: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Sorted names of the files and the folders in a folder; links are followed."""
    files, folders, sentences = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden_name(entry.name):
                continue
            try:
                if entry.is_file():
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
                else:
                    kind = _KINDS.get(stat.S_IFMT(entry.stat().st_mode), "a device")
                    sentences.append(f"{folder / entry.name}: {kind}, not a file")
            except OSError as error:
                reason = "a broken link" if entry.is_symlink() else error.strerror
                sentences.append(f"{folder / entry.name}: {reason}")
    for sentence in sorted(sentences):
        report(sentence)
    return sorted(files), sorted(folders)
