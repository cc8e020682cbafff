"""Splits photographs into training and validation: by lists or folders, or one in five."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from fastfcn_jax.doctor import text_files, words
from fastfcn_jax.doctor.bad_files import counted

SplitBy = Literal["auto", "fifth"]


class Parts(NamedTuple):
    """The part (train, val or test) of each photograph, and where that is defined."""

    of: dict[Path, str]
    source: str


class Division(NamedTuple):
    train: list[Path]
    val: list[Path]
    lines: list[str]


def find_parts(folder: Path, texts: Sequence[Path], photos: Sequence[Path]) -> Parts:
    """Finds the split in lists (`train.txt` and `val.txt` side by side) or in folder names.

    Args:
      texts, photos: relative to `folder`; the photographs sorted by name.
    """
    by_folder: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in texts:
        part = words.SPLITS.get(path.name.lower().split(".")[0])
        if part and ".txt" in path.name and not _is_written_here(folder, path):
            by_folder[path.parent].setdefault(part, path)
    known = _by_stem(photos)
    for place in sorted(by_folder, key=_likeliest):
        lists = by_folder[place]
        if {"train", "val"} <= lists.keys():
            of = _listed(folder, lists, known)
            if of is not None:
                return Parts(of, f"{lists['train']} and {lists['val']}")
    of = {p: words.part(p) for p in photos}
    return Parts(of, "the folders train and val")


def divide(
    photos: Sequence[Path], parts: Parts, values: Mapping[Path, Collection[Hashable]]
) -> Division:
    """Photographs for training and for validation, and lines about the choice.

    Args:
      values: the label values in each photograph; see `a_fifth`.
    """
    said = {p: parts.of.get(p, "") for p in photos}
    if {"train", "val"} <= set(said.values()):
        train = [p for p in photos if said[p] == "train"]
        val = [p for p in photos if said[p] == "val"]
        lines = [f"  the split follows {parts.source} (--split fifth for a random one)"]
        if others := len(photos) - len(train) - len(val):
            lines.append(f"  left out, as they are in neither of the two: {others} photos")
        return Division(train, val, lines)
    usable = [p for p in photos if said[p] != "test"] or list(photos)
    lines = []
    if others := len(photos) - len(usable):
        lines.append(
            f"  left out, as they are in a folder called test: {others} photos "
            "(--split fifth takes them)"
        )
    held = a_fifth(usable, values)
    train = [p for p in usable if p not in held]
    val = [p for p in usable if p in held]
    if not train:
        lines.append("  the only photo is in both: its scores say nothing about other photos")
    return Division(train or val, val, lines)


def a_fifth(
    photos: Sequence[Path],
    values: Mapping[Path, Collection[Hashable]],
    *,
    at_least: int = 1,
) -> set[Path]:
    """A fifth of the photographs (rounded), chosen by name and spread over the classes.

    Starts with a fifth of the photographs that have the rarest class, then the next rarest.
    """
    wanted = max(round(len(photos) / 5), min(at_least, len(photos)))
    order = sorted(photos, key=lambda p: hashlib.sha256(os.fsencode(p.stem)).digest())
    having = Counter(v for p in photos for v in values.get(p, ()))
    held: dict[Path, None] = {}
    for value, count in sorted(having.items(), key=lambda item: (item[1], repr(item[0]))):
        present = [p for p in order if value in values.get(p, ())]
        missing = round(count * wanted / len(photos)) - sum(p in held for p in present)
        free = [p for p in present if p not in held]
        for photo in free[: max(min(missing, wanted - len(held)), 0)]:
            held[photo] = None
    for photo in order:
        if len(held) >= wanted:
            break
        held[photo] = None
    return set(held)


def _is_written_here(folder: Path, path: Path) -> bool:
    """Whether the doctor wrote this list: it is next to its configuration and has tabs."""
    if not (folder / "fastfcn_config.py").is_file():
        return False
    return all("\t" in line for line in text_files.lines(folder / path))


def describe(division: Division) -> list[str]:
    train, val = counted(len(division.train), "photo"), len(division.val)
    return [f"{train} to train on, {val} to validate", *division.lines]


def _likeliest(place: Path) -> tuple:
    """Lists for segmentation first (Pascal VOC also has others), then those nearest the top."""
    return "segmentation" not in place.name.lower(), len(place.parts), place


def _by_stem(photos: Sequence[Path]) -> dict[str, list[Path]]:
    known = defaultdict(list)
    for photo in photos:
        known[words.plain(photo.stem)].append(photo)
    return known


def _listed(
    folder: Path, lists: Mapping[str, Path], known: Mapping[str, list[Path]]
) -> dict[Path, str] | None:
    """The part of each photograph named in the lists; None if they list something else."""
    of, lines = {}, 0
    for part, path in lists.items():
        for line in text_files.lines(folder / path):
            lines += 1
            if photo := _named(line, known):
                of.setdefault(photo, part)
    return of if of and len(of) >= 0.5 * lines else None


def _named(line: str, known: Mapping[str, list[Path]]) -> Path | None:
    """The photograph named in a line, alone or before its label, with or without suffix."""
    for name in (line, line.split("\t")[0], line.split()[0]):
        path = PurePosixPath(name.replace("\\", "/"))
        for stem in (path.name, path.stem):
            if candidates := known.get(words.plain(stem)):
                way = words.plain(path.parent.as_posix()).split("/")
                return max(candidates, key=lambda p: _shared_end(p.parent.parts, way))
    return None


def _shared_end(parts: Sequence[str], way: Sequence[str]) -> int:
    """Number of equal trailing parts of two paths."""
    count = 0
    for a, b in zip(reversed(parts), reversed(way), strict=False):
        if words.plain(a) != b:
            break
        count += 1
    return count
