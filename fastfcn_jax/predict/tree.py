"""Lists the photographs of a folder and its sub-folders, and says what is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fastfcn_jax import text
from fastfcn_jax.data import listing
from fastfcn_jax.data.listing import IMAGE_SUFFIXES
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import manifest
from fastfcn_jax.predict.settings import CONFIDENCE, OVERLAY, VIDEOS

MAX_NAMED = 5  # at most so many skipped entries are listed


class Tree:
    """Lists the photographs of a folder and its sub-folders, anew at each call.

    The first listing, when it is made, prints what is left out. What lies in the folder of the
    results is listed only then, as results come in.

    Raises:
      UserError: there is no photograph.
    """

    def __init__(self, folder: Path, output: Path | None):
        self._folder, self._output = folder, output
        self._inside: Path | None = None  # the folder of the results, by its place in this one
        if output is not None and output.resolve().is_relative_to(folder.resolve()):
            self._inside = folder / output.resolve().relative_to(folder.resolve())
        self._kept: dict[Path, list[str]] = {}
        self._look_around()

    def __call__(self) -> Iterator[tuple[Path, list[str]]]:
        for folder, inside in listing.walk(self._folder, lambda _: None):
            if self._is_inside(folder):
                yield folder, self._kept.get(folder, [])
            else:
                yield folder, [name for name in inside if _suffix(name) in IMAGE_SUFFIXES]

    def _is_inside(self, folder: Path) -> bool:
        return self._inside is not None and folder.is_relative_to(self._inside)

    def _look_around(self) -> None:
        results = manifest.results(self._output) if self._inside and self._output else set()
        unreadable, others = Reports(), Counter()
        photographs, videos, video = 0, 0, None
        for folder, inside in listing.walk(self._folder, unreadable.add):
            if self._is_inside(folder):
                inside = [n for n in inside if not self._is_result(folder / n, results)]
                self._kept[folder] = [n for n in inside if _suffix(n) in IMAGE_SUFFIXES]
            for name in inside:
                suffix = _suffix(name)
                if suffix in IMAGE_SUFFIXES:
                    photographs += 1
                elif suffix in VIDEOS:
                    videos, video = videos + 1, video or folder / name
                else:
                    others[suffix or "without suffix"] += 1
        counts = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(MAX_NAMED))
        counts += ", ..." if len(others) > MAX_NAMED else ""
        if not photographs:
            remedy = f"; give a video by its own name: --input {video}" if videos else ""
            remedy = f", but {counts}{remedy}" if others else remedy
            listed = ", ".join(IMAGE_SUFFIXES)
            raise UserError(
                f"--input {self._folder}: the folder holds no image ({listed}){remedy}."
            )
        if videos:
            print(
                f"{videos} videos are left out, such as {text.shown(video)}: give each by its own "
                "name"
            )
        if others:
            print(f"left out, as they are not supported images: {text.shown(counts)}")
        unreadable.print()

    def _is_result(self, path: Path, results: set[str]) -> bool:
        """Whether `predict` wrote this: a manifest lists it, or it is next to an overlay."""
        assert self._inside is not None
        is_list = path.name.startswith("predictions") and path.suffix in (".json", ".jsonl")
        place = path.relative_to(self._inside)
        if is_list or str(place) in results or f"{place.parent}/" in results:
            return True
        if path.suffix not in (".png", ".npy", ".tif"):
            return False
        stem = path.stem.removesuffix(OVERLAY).removesuffix(CONFIDENCE)
        video = path.parent.with_name(f"{path.parent.name}_overlay.mp4")
        return path.with_name(f"{stem}{OVERLAY}.png").exists() or video.exists()


class Reports:
    """The first sentences of many, and their number."""

    def __init__(self):
        self._first, self._count = [], 0

    def add(self, sentence: str) -> None:
        self._count += 1
        if len(self._first) < MAX_NAMED:
            self._first.append(sentence)

    def print(self) -> None:
        for sentence in self._first:
            print(f"left out: {text.shown(sentence)}")
        if self._count > MAX_NAMED:
            print(f"left out: {self._count - MAX_NAMED} more such entries")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
