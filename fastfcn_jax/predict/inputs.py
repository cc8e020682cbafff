"""Finds the inputs of `predict --input`: photographs, folders, patterns, videos, standard input."""

import glob
import heapq
import itertools
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Num

from fastfcn_jax.data import listing, rasters
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import names, shards, tree
from fastfcn_jax.predict.settings import VIDEOS, Settings
from fastfcn_jax.predict.shards import Shard

STDIN = "-"


class Photograph(NamedTuple):
    """An image file (standard input if `path` is None) and the stem of its results' names."""

    path: Path | None
    stem: str

    @property
    def source(self) -> str:
        """The file as the manifest names it."""
        return STDIN if self.path is None else os.path.abspath(self.path)

    @property
    def name(self) -> str:
        """The file's path below the input."""
        own = "stdin" if self.path is None else self.path.name
        return os.path.join(os.path.dirname(self.stem), own)

    def read(self) -> bytes:
        """The file's bytes; UserError if it cannot be read."""
        if self.path is None:
            return sys.stdin.buffer.read()
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}).") from error

    def decode(self, pixel: PixelType) -> Num[np.ndarray, "h w c"]:
        """Pixels; UserError if the file is damaged, not an image, or not of type `pixel`."""
        return rasters.image(self.read(), str(self.path or "standard input"), pixel)

    def size(self, pixel: PixelType) -> tuple[int, int]:
        """(height, width) from the file's header; UserError if it is not an image."""
        return rasters.size(self.read(), str(self.path), pixel)


@runtime_checkable
class Photographs(Protocol):
    """Photographs that can be gone through several times; `len` is their number."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Photograph]: ...


class Found:
    """The photographs of one call, listed anew by every iteration.

    Only the names of one folder are in memory at a time, those of a pattern all. Their number is
    `len(found)`.

    Args:
      base: the folder whose sub-folders are kept in the stems.
      folders: yields each folder with the names of its photographs.

    Raises:
      UserError: the results of two photographs would have the same name.
    """

    def __init__(
        self,
        base: Path,
        folders: Callable[[], Iterable[tuple[Path, list[str]]]],
        settings: Settings,
        shard: Shard,
    ):
        self._base, self._folders = base, folders
        self._settings, self._shard = settings, shard
        self._count = 0
        for folder, inside in folders():
            names.refuse_clash(folder, inside, settings)
            place = self._place(folder)
            self._count += sum(shard.takes(place + name) for name in inside)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Photograph]:
        for folder, inside in self._folders():
            place = self._place(folder)
            for name in inside:
                if self._shard.takes(place + name):
                    yield Photograph(folder / name, place + self._settings.stem(name))

    def _place(self, folder: Path) -> str:
        """The folder below `base`, to be put before a name."""
        place = str(folder.relative_to(self._base))
        return "" if place == "." else f"{place}/"


class StandardInput:
    """One photograph from standard input, in the place of `Found`."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Photograph]:
        yield Photograph(None, "stdin")


def sample(photographs: Iterable[Photograph], at_most: int) -> list[Photograph]:
    """Photographs spread over all of them, in their order; the same ones at every call."""
    keyed = (
        (zlib.crc32(os.fsencode(photograph.stem)), place, photograph)
        for place, photograph in enumerate(photographs)
    )
    chosen = heapq.nsmallest(at_most, keyed)
    return [photograph for *_, photograph in sorted(chosen, key=lambda entry: entry[1])]


def find(
    source: str,
    output: Path | None = None,
    settings: Settings | None = None,
    shard: Shard = shards.ALL,
) -> Photographs:
    """The photographs that a file name, folder, pattern or "-" refers to, sorted by name.

    A stem is the file's path below the folder, or below the part of the pattern without wildcards.

    Args:
      output: folder of the results; results of an earlier call in it are not taken as input.
      settings: how results are named.
      shard: which share of the photographs to take.

    Raises:
      UserError: nothing is found, or two photographs would have results of the same name.
    """
    settings = settings or Settings()
    if source == STDIN:
        return StandardInput()
    path = Path(source).expanduser()
    if path.is_dir():
        return Found(path, tree.Tree(path, output), settings, shard)
    if path.is_file():
        return Found(path.parent, lambda: [(path.parent, [path.name])], settings, shard)
    if path.exists():
        raise UserError(f"--input {source}: neither a file nor a folder; pipe it into --input -.")
    base, matches = _matches(str(path))
    if not matches:
        raise UserError(f"--input {source}: no such image, folder or video.")
    return Found(base, lambda: _by_folder(matches), settings, shard)


def _by_folder(paths: list[str]) -> Iterator[tuple[Path, list[str]]]:
    for folder, inside in itertools.groupby(paths, os.path.dirname):
        yield Path(folder), [os.path.basename(path) for path in inside]


def _matches(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first wildcard, and the files that match, folder by folder.

    Brackets in the name of an existing folder are literal.
    """
    base, fixed, parts = Path(), Path(), []
    for part in Path(pattern).parts:
        is_there = base is not None and os.path.lexists(base / part)
        is_name = is_there or not any(sign in part for sign in "*?[")
        if is_name and len(fixed.parts) == len(parts):
            fixed /= part
        parts.append(glob.escape(part) if is_there and "[" in part else part)
        base = base / part if base is not None and is_there else None
    matched = set(glob.iglob(str(Path(*parts)), recursive=True))
    found = [p for p in matched if os.path.isfile(p) and not listing.is_circular(Path(p))]
    return fixed, sorted(found, key=os.path.split)


def is_video(source: str) -> bool:
    return Path(source).suffix.lower() in VIDEOS and Path(source).is_file()
