"""Decoded pixels on disk: a split is decoded once, then read in crops through a memory map.

A cache is a folder with `pixels.bin` (the image, then the label of each sample), `index.jsonl`
(one line per sample with a checksum, written after its pixels) and, once both are complete on
disk, `finished` (the size of both and a hash of the index).
"""

import fcntl
import functools
import hashlib
import json
import mmap
import os
import pickle
import shutil
import sys
import time
import zlib
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from fastfcn_jax import cli, files, stored
from fastfcn_jax.data import datasets, pipeline
from fastfcn_jax.data.pixel_type import DTYPES, RGB, PixelType
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, Sample, Source
from fastfcn_jax.errors import UserError

LAYOUT = 2  # part of a cache's name, so that older layouts are not opened
ENTRY = {"id": str, "size": [int], "offset": int, "end": int, "crc32": int}
ELSEWHERE = "set data.cache to another disk, or to '' to decode the files each time"


@dataclass(frozen=True)
class CachedSource:
    """A finished cache. It can be pickled: processes that map the same file share its memory."""

    info: DatasetInfo
    ids: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]
    path: str
    pixel: PixelType = RGB

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Views into the memory map: nothing is read from disk until it is accessed."""
        h, w = self.sizes[int(index)]
        count = h * w * bytes_per_pixel(self.pixel)
        buffer = np.frombuffer(_mapped(self.path), np.uint8, count, self.offsets[int(index)])
        image, label = buffer[: -h * w].view(self.pixel.dtype), buffer[-h * w :]
        shape = (h, w, self.pixel.channels)
        return Sample(self.ids[int(index)], image.reshape(shape), label.reshape(h, w))


def bytes_per_pixel(pixel: PixelType) -> int:
    """Bytes that a pixel and its label take in a cache."""
    return pixel.bytes + 1


def open_or_build(folder: str, source: Source, *, threads: int = 8) -> CachedSource:
    """Opens the cache of `source` in `folder`, building it first if necessary.

    Several processes may call this at once: one builds, the others wait for it. An interrupted
    build resumes where it stopped. The cache's name contains a fingerprint of the files' names,
    sizes and modification times and of the label table, so a changed file gets a new cache.

    Raises:
      UserError: the disk is too small or cannot be written, a file is bad, or the source is
        generated.
    """
    if not isinstance(source, EncodedSource):
        raise UserError(f"data.cache: {source.info.name} is not read from files; set it to ''.")
    path = Path(folder, f"{source.info.name}-{fingerprint(source)[:16]}")
    try:
        if _fault(path, source) is None:
            return _load(path, source)
        path.mkdir(parents=True, exist_ok=True)
        with _lock(path / "lock"):
            if (fault := _fault(path, source)) is not None:
                if fault:
                    print(f"warning: {path}: {fault}; rebuilding the cache", file=sys.stderr)
                    _discard(path)
                _build(path, source, threads)
        return _load(path, source)
    except OSError as error:
        raise UserError(
            f"{path}: the cache cannot be written ({error.strerror}); {ELSEWHERE}."
        ) from error


def fingerprint(source: EncodedSource) -> str:
    """A hash that changes whenever a file or the meaning of the labels changes."""
    digest = hashlib.sha256(pickle.dumps((LAYOUT, source.info.class_names, source.to_classes)))
    if source.pixel != RGB:
        digest.update(str(source.pixel).encode())
    for name in source.read.files():
        status = os.stat(name)
        digest.update(os.fsencode(f"{name} {status.st_size} {status.st_mtime_ns}\n"))
    digest.update(repr(source.read).encode())
    return digest.hexdigest()


def _build(path: Path, source: EncodedSource, threads: int) -> None:
    done = _completed(path)
    end = done[-1]["end"] if done else 0
    _check_space(path, source, end)
    started, first = time.monotonic(), len(done)
    with open(path / "pixels.bin", "ab") as pixels, open(path / "index.jsonl", "wb") as index:
        pixels.truncate(end)
        index.write(b"".join(map(_line, done)))
        for i, sample in pipeline.in_order(source, range(first, len(source)), threads=threads):
            pixels.write(sample.image.data)
            pixels.write(sample.label.data)
            # The next image begins where a value of its type may begin in memory.
            gap = bytes(-sample.label.nbytes % sample.image.itemsize)
            pixels.write(gap)
            pixels.flush()
            sums = zlib.crc32(sample.label.data, zlib.crc32(sample.image.data))
            entry = {
                "id": sample.id,
                "size": sample.label.shape,
                "offset": end,
                "end": end + sample.image.nbytes + sample.label.nbytes + len(gap),
                "crc32": zlib.crc32(gap, sums),
            }
            end = entry["end"]
            index.write(_line(entry))
            index.flush()
            _report(i + 1, len(source), first, started)
        for file in (pixels, index):
            os.fsync(file.fileno())
    files.write_json(path / "finished", _seal(path))


def _completed(path: Path) -> list[dict]:
    """Index entries of an unfinished build, up to the first one whose pixels do not match it."""
    done, pixels = [], path / "pixels.bin"
    if not pixels.is_file() or not (path / "index.jsonl").is_file():
        return []
    with open(pixels, "rb") as file:
        for line in (path / "index.jsonl").read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if stored.fault(entry, ENTRY) or not line.endswith(b"\n"):
                break
            content = file.read(entry["end"] - entry["offset"])
            if file.tell() != entry["end"] or zlib.crc32(content) != entry["crc32"]:
                break  # after a power failure the index may list pixels that never reached the disk
            done.append(entry)
    return done


def _fault(path: Path, source: EncodedSource) -> str | None:
    """Why a cache cannot be used: "" if it is unfinished, None if it is usable."""
    if not (path / "finished").is_file():
        return ""
    try:
        sealed = json.loads((path / "finished").read_bytes())
        found = _seal(path)
    except (OSError, ValueError) as error:
        return str(error)
    if not isinstance(sealed, dict):
        return "it was written by another version"
    if found["samples"] != len(source):
        return f"it has {found['samples']} samples instead of {len(source)}"
    differing = [name for name, value in found.items() if sealed.get(name) != value]
    if differing:
        return f"its {' and '.join(differing)} changed after it was finished"
    return None


def _seal(path: Path) -> dict[str, int | str]:
    index = (path / "index.jsonl").read_bytes()
    return {
        "samples": index.count(b"\n"),
        "bytes": (path / "pixels.bin").stat().st_size,
        "index": hashlib.sha256(index).hexdigest(),
    }


def _discard(path: Path) -> None:
    # Unlinked, not truncated: another training run that has these files mapped would crash.
    for name in ("finished", "index.jsonl", "pixels.bin"):
        (path / name).unlink(missing_ok=True)
    _mapped.cache_clear()


def _line(entry: dict) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _load(path: Path, source: EncodedSource) -> CachedSource:
    entries = [json.loads(line) for line in (path / "index.jsonl").read_bytes().splitlines()]
    return CachedSource(
        source.info,
        tuple(e["id"] for e in entries),
        tuple(tuple(e["size"]) for e in entries),
        tuple(e["offset"] for e in entries),
        str(path / "pixels.bin"),
        source.pixel,
    )


def _check_space(path: Path, source: EncodedSource, written: int) -> None:
    needed = source[0].label.size * bytes_per_pixel(source.pixel) * len(source) - written
    free = shutil.disk_usage(path).free
    if needed > free:
        raise UserError(
            f"{path}: the cache needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            f"free; {ELSEWHERE}."
        )


def _report(done: int, count: int, first: int, started: float) -> None:
    if done % 200 and done != count:
        return
    rate = (done - first) / max(time.monotonic() - started, 1e-9)
    print(f"cache: {done}/{count} images, {rate:.0f} per second", file=sys.stderr)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Excludes other processes; the kernel releases the lock even if this process is killed."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def _mapped(path: str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def define(parser: cli.Parser) -> None:
    parser.need("--name", "cityscapes", "Data set, as in config.data.name.")
    parser.need("--root", "DIR", "Folder of the data set.", type=cli.path, metavar="DIR")
    parser.need("--output", "CACHE", "Folder to write into.", type=cli.path, metavar="DIR")
    parser.add_argument("--split", default="train", help="Which split; default: train.")
    parser.add_argument(
        "--channels", type=cli.at_least(1), default=3, metavar="N", help="config.data.channels."
    )
    parser.add_argument("--dtype", default="uint8", choices=DTYPES, help="config.data.dtype.")


def run(arguments: Namespace) -> None:
    pixel = PixelType(arguments.channels, arguments.dtype)
    source = datasets.load(arguments.name, str(arguments.root), arguments.split, pixel)
    cached = open_or_build(str(arguments.output), source)
    print(f"{len(cached)} images in {Path(cached.path).parent}")
    print(f"use it with --config.data.cache={arguments.output}")


COMMAND = cli.Command(
    name="cache",
    example="fastfcn cache --name cityscapes --root CITYSCAPES --output CACHE",
    about="""Decodes a split once, before a training run reads it with --config.data.cache=CACHE.
An interrupted build resumes where it stopped.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
