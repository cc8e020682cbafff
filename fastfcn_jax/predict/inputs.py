"""Finds the inputs of `predict --input`: photographs, folders, patterns, videos, standard input."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax import text
from fastfcn_jax.data import listing, rasters
from fastfcn_jax.data.listing import IMAGE_SUFFIXES
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
STDIN = "-"
MAX_NAMED = 5  # at most so many skipped entries are listed


class Photograph(NamedTuple):
    """An image file (standard input if `path` is None) and the stem of its results' names."""

    path: Path | None
    stem: str

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


def find(source: str, output: Path | None = None) -> list[Photograph]:
    """The photographs that a file name, folder, pattern or "-" refers to, sorted by name.

    A folder includes its sub-folders, whose names become part of the stems.

    Args:
      output: folder of the results; results of an earlier call in it are not taken as input.

    Raises:
      UserError: nothing is found.
    """
    if source == STDIN:
        return [Photograph(None, "stdin")]
    path = Path(source).expanduser()
    if path.is_dir():
        return _find_below(path, output)
    if path.is_file():
        paths = [path]
    elif path.exists():
        raise UserError(f"--input {source}: neither a file nor a folder; pipe it into --input -.")
    else:
        paths = _matches(str(path))
        if not paths:
            raise UserError(f"--input {source}: no such image, folder or video.")
    return [Photograph(p, stem) for p, stem in zip(paths, _stems(paths), strict=True)]


def _matches(pattern: str) -> list[Path]:
    """Files that a pattern matches. Brackets in the name of an existing folder are literal."""
    base, parts = Path(), []
    for part in Path(pattern).parts:
        is_name = base is not None and "[" in part and os.path.lexists(base / part)
        parts.append(glob.escape(part) if is_name else part)
        base = base / part if base is not None and os.path.lexists(base / part) else None
    found = {Path(p) for p in glob.glob(str(Path(*parts)), recursive=True)}
    return sorted(p for p in found if p.is_file() and not listing.is_circular(p))


def _find_below(folder: Path, output: Path | None) -> list[Photograph]:
    files, unreadable = listing.below(folder)
    if output is not None and output.resolve().is_relative_to(folder.resolve()):
        files = [path for path in files if not _is_result(path, output)]
    paths = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    videos = [path for path in files if path.suffix.lower() in VIDEOS]
    known = (*IMAGE_SUFFIXES, *VIDEOS)
    suffixes = [path.suffix.lower() for path in files]
    others = Counter(suffix or "without suffix" for suffix in suffixes if suffix not in known)
    counts = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(MAX_NAMED))
    counts += ", ..." if len(others) > MAX_NAMED else ""
    if not paths:
        remedy = f"; give a video by its own name: --input {videos[0]}" if videos else ""
        remedy = f", but {counts}{remedy}" if others else remedy
        listed = ", ".join(IMAGE_SUFFIXES)
        raise UserError(f"--input {folder}: the folder holds no image ({listed}){remedy}.")
    if videos:
        print(
            f"{len(videos)} videos are left out, such as {text.shown(videos[0])}: give each by "
            "its own name"
        )
    if others:
        print(f"left out, as they are not supported images: {text.shown(counts)}")
    for sentence in unreadable[:MAX_NAMED]:
        print(f"left out: {text.shown(sentence)}")
    if len(unreadable) > MAX_NAMED:
        print(f"left out: {len(unreadable) - MAX_NAMED} more such entries")
    found = []
    for parent in sorted({path.parent for path in paths}):
        inside = [path for path in paths if path.parent == parent]
        place = parent.relative_to(folder)
        found += [
            Photograph(path, str(place / stem))
            for path, stem in zip(inside, _stems(inside), strict=True)
        ]
    return found


def _is_result(path: Path, output: Path) -> bool:
    """Whether `predict` wrote this: it is below `output`, next to an overlay."""
    if path.suffix not in (".png", ".npy") or not path.resolve().is_relative_to(output.resolve()):
        return False
    stem = path.stem.removesuffix("_overlay").removesuffix("_confidence")
    video = path.parent.with_name(f"{path.parent.name}_overlay.mp4")
    return path.with_name(f"{stem}_overlay.png").exists() or video.exists()


def _stems(paths: list[Path]) -> list[str]:
    """Names without suffix; with suffix or folders if results would overwrite each other."""
    for name in (
        lambda path: path.stem,
        lambda path: path.name.replace(".", "_"),
        lambda path: "_".join(path.parts).strip("/").replace(".", "_"),
    ):
        stems = [name(path) for path in paths]
        results = {f"{stem}{kind}" for stem in stems for kind in ("", "_overlay", "_confidence")}
        if len(results) == 3 * len(stems):
            return stems
    return [f"{i:06d}_{path.stem}" for i, path in enumerate(paths)]


def is_video(source: str) -> bool:
    return Path(source).suffix.lower() in VIDEOS and Path(source).is_file()


class Video:
    """A video file: its nominal length and (height, width), and its frames in RGB.

    Raises UserError if OpenCV cannot open it.
    """

    def __init__(self, path: Path):
        if text.shown(path) != str(path):  # OpenCV would abort the process
            raise UserError(f"{text.shown(path)}: OpenCV needs a UTF-8 name; rename the video.")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path} is not a video that can be decoded.")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        height, width = cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
        self.size = int(self._capture.get(height)), int(self._capture.get(width))
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "_ _ 3"]]:
        while True:
            ok, frame = self._capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
