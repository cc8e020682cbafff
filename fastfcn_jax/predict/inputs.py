"""Finds the inputs of `predict`: photographs, folders, patterns, addresses, videos, stdin."""

import glob
import heapq
import itertools
import os
import posixpath
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Num

from fastfcn_jax import addresses
from fastfcn_jax.data import listing, rasters
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import names, shards, tree
from fastfcn_jax.predict.settings import VIDEOS, Settings
from fastfcn_jax.predict.shards import Shard

STDIN = "-"


class Photograph(NamedTuple):
    """An image and the stem of its results' names.

    path: its file; None: it is at `address`, or comes from standard input.
    content: the bytes, if they are known already; `address` then only names them.
    """

    path: Path | None
    stem: str
    address: str = STDIN
    content: bytes | None = None

    @property
    def source(self) -> str:
        """The file as the manifest names it."""
        return self.address if self.path is None else os.path.abspath(self.path)

    @property
    def name(self) -> str:
        """The file's path below the input."""
        own = posixpath.basename(self.address) if self.path is None else self.path.name
        return os.path.join(os.path.dirname(self.stem), "stdin" if self.is_stdin else own)

    @property
    def is_stdin(self) -> bool:
        """Whether it can be read only once."""
        return self.path is None and self.address == STDIN

    @property
    def _shown(self) -> str:
        return "standard input" if self.is_stdin else str(self.path or self.address)

    def read(self) -> bytes:
        """The file's bytes; UserError if it cannot be read."""
        if self.content is not None:
            return self.content
        if self.path is None:
            return sys.stdin.buffer.read() if self.is_stdin else addresses.read(self.address)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}).") from error

    def decode(self, pixel: PixelType) -> Num[np.ndarray, "h w c"]:
        """Pixels; UserError if the file is damaged, not an image, or not of type `pixel`."""
        return rasters.image(self.read(), self._shown, pixel)

    def size(self, pixel: PixelType) -> tuple[int, int]:
        """(height, width) from the file's header; UserError if it is not an image."""
        return rasters.size(self.read(), self._shown, pixel)


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
      beside: the paths are in the file system of this address; None: they are files here.

    Raises:
      UserError: the results of two photographs would have the same name.
    """

    def __init__(
        self,
        base: PurePath,
        folders: Callable[[], Iterable[tuple[PurePath, list[str]]]],
        settings: Settings,
        shard: Shard,
        beside: str | None = None,
    ):
        self._base, self._folders, self._beside = base, folders, beside
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
                    yield self._photograph(folder / name, place + self._settings.stem(name))

    def _photograph(self, path: PurePath, stem: str) -> Photograph:
        if self._beside is None:
            return Photograph(Path(path), stem)
        return Photograph(None, stem, addresses.beside(self._beside, str(path)))

    def _place(self, folder: PurePath) -> str:
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
    if addresses.is_address(source):
        return _found_at(source, settings, shard)
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


def _found_at(source: str, settings: Settings, shard: Shard) -> Found:
    """The photographs at an address: of one file, below a folder, or of a pattern."""
    base = PurePosixPath(addresses.place(source))
    if any(sign in source for sign in "*?["):
        matches = addresses.matches(source)
        base = PurePosixPath(*itertools.takewhile(lambda p: not set("*?[") & set(p), base.parts))
    elif addresses.is_folder(source):
        return Found(base, lambda: _images(addresses.walk(source)), settings, shard, source)
    else:
        matches = [str(base)] if addresses.is_file(source) else []
        base = base.parent
    if not matches:
        raise UserError(f"--input {source}: no such image or folder.")
    return Found(base, lambda: _by_folder(matches), settings, shard, source)


def _images(
    folders: Iterable[tuple[PurePath, list[str]]],
) -> Iterator[tuple[PurePath, list[str]]]:
    for here, inside in folders:
        yield here, [n for n in inside if PurePath(n).suffix.lower() in listing.IMAGE_SUFFIXES]


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
