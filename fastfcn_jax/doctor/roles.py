"""Decides which images of a folder are photographs and which are labels."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from fastfcn_jax.data import rasters
from fastfcn_jax.data.source import read_file
from fastfcn_jax.doctor import stored_labels, words
from fastfcn_jax.doctor.bad_files import BadFile
from fastfcn_jax.errors import UserError

MAX_COLORS = 64  # more distinct values than this in a coarse grid: a photograph, not a label


class Roles(NamedTuple):
    """Paths relative to the folder, sorted by name."""

    photos: list[Path]
    labels: list[Path]
    bad: list[BadFile]


def find_roles(
    folder: Path, pictures: Sequence[Path], *, photos: str = "", labels: str = ""
) -> Roles:
    """Distinguishes photographs from labels by folder, suffix of the name, or number of colours.

    Args:
      pictures: relative to `folder`.
      photos, labels: a sub-folder, or a pattern such as `gtFine/*_color.png`, that holds all
        photographs, all labels; "" to detect them.
    """
    said = _said(pictures)
    stems = {words.plain(p.stem) for p in pictures}
    found = Roles([], [], [])

    def judge(path: Path) -> "bool | BadFile | _NoLabel | None":
        if labels and is_within(path, labels):
            return True
        if photos and is_within(path, photos):
            return False
        is_label = said[path]
        if is_label is None:
            is_label = _by_ending(path, stems)
        if is_label is None:
            is_label = _by_colors(folder / path)
        # If the user named their folder, files elsewhere are neither.
        if isinstance(is_label, bool) and (labels if is_label else photos):
            return None
        return is_label

    with ThreadPoolExecutor() as pool:
        judged = dict(zip(pictures, pool.map(judge, pictures), strict=True))
    among = Counter(path.parent for path, role in judged.items() if role is True)
    there = Counter(path.parent for path in pictures)
    for path, role in judged.items():
        if isinstance(role, _NoLabel):  # more bits than a label: a photograph, or a bad label
            is_bad = 2 * among[path.parent] > there[path.parent]
            role = BadFile(path, role.sentence) if is_bad else False
        if isinstance(role, BadFile):
            found.bad.append(role)
        elif role is not None:
            (found.labels if role else found.photos).append(path)
    return found


class _NoLabel(NamedTuple):
    """An intact image that cannot be a label, and why."""

    sentence: str


def is_within(path: PurePath, place: str) -> bool:
    """Whether a relative path is in a folder or matches a pattern."""
    return path.is_relative_to(place) or fnmatchcase(path.as_posix(), place)


def _said(pictures: Sequence[Path]) -> dict[Path, bool | None]:
    """What the innermost telling folder name says, without the folders that all images share."""
    shared = 0
    if pictures:
        columns = zip(*(p.parent.parts for p in pictures), strict=False)
        shared = next((i for i, names in enumerate(columns) if len(set(names)) > 1), None)
        shared = min(len(p.parent.parts) for p in pictures) if shared is None else shared
    found = {}
    for path in pictures:
        names = reversed(path.parent.parts[shared:])
        answers = (words.says_label(name) for name in names)
        found[path] = next((a for a in answers if a is not None), None)
    return found


def _by_ending(path: Path, stems: set[str]) -> bool | None:
    """An image named like another plus a label word is a label: x_mask.png beside x.png."""
    own, *others = words.label_keys(path)
    is_named = words.words(own[len(others[0]) :] if others else "") & words.LABEL_WORDS
    return True if is_named and stems.intersection(others) else None


def _by_colors(path: Path) -> bool | BadFile | _NoLabel:
    """Whether an image in a lossless format has few colours in a coarse grid."""
    if path.suffix.lower() in (".jpg", ".jpeg", ".npy"):
        return False
    try:
        pixels = stored_labels.read(path).pixels
    except UserError as error:
        if len(words.label_keys(path)) > 1:
            return BadFile(path, str(error))
        try:  # a photograph may have more bits or channels, but must be intact
            rasters.as_stored(read_file(str(path)), str(path))
        except UserError as damage:
            return BadFile(path, str(damage))
        return _NoLabel(str(error))
    grid = pixels[:: max(pixels.shape[0] // 64, 1), :: max(pixels.shape[1] // 64, 1)]
    flat = grid.reshape(-1, 1) if grid.ndim == 2 else grid.reshape(-1, 3)
    return len(np.unique(flat, axis=0)) <= MAX_COLORS
