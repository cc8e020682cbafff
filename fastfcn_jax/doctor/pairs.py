"""Which pictures of a folder are photos, which labels, and which two belong together."""

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastfcn_jax.data import decode
from fastfcn_jax.data.datasets import layout
from fastfcn_jax.data.source import read_file
from fastfcn_jax.errors import UserError

LABEL_SUFFIX = re.compile(
    r"(.+)[-_. ](labels?|labelids|masks?|seg(mentations?)?|annot(ations?)?|gt|gtfine|truth|l)"
)
LABEL_FOLDER = re.compile(
    r"labels?|masks?|ann(_dir|ot|ots|otations?)?|gt(fine)?|ground_?truth|seg(mentations?)?(class)?"
)
PHOTO_FOLDER = re.compile(r"images?|imgs?(_dir)?|photos?|pictures?|jpegimages|rgb|leftimg8bit")
SPLIT_FOLDER = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
MAX_COLORS = 64  # more distinct values than this in a coarse grid: a photo, not a label


class Pair(NamedTuple):
    """A photo with its label; `part` is train, val or test if a folder's name says so, or ''."""

    photo: Path
    label: Path
    part: str


def find_pairs(folder: Path) -> tuple[list[Pair], list[Path]]:
    """Every photo with the label of the same name, extension and label words aside; the rest.

    Raises:
      UserError: there is no pair, two labels claim one photo, or a label cannot be read.
    """
    files = [
        p.relative_to(folder)
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in layout.IMAGE_SUFFIXES and not p.name.startswith(".")
    ]
    if not files:
        raise UserError(f"{folder}: no pictures in it; set --folder to the one with your photos.")
    with ThreadPoolExecutor() as pool:
        is_label = list(pool.map(lambda p, said: _is_label(folder / p, said), files, _said(files)))
    photo_files = [p for p, label in zip(files, is_label, strict=True) if not label]
    label_files = [p for p, label in zip(files, is_label, strict=True) if label]
    # Where photos and labels both have folders of a split, each part has names of its own.
    apart = any(map(_part, photo_files)) and any(map(_part, label_files))
    photos = _by_name(folder, photo_files, lambda p: (apart and _part(p), p.stem.lower()))
    labels = _by_name(folder, label_files, lambda p: (apart and _part(p), _key(p)))
    keys = sorted(photos.keys() & labels.keys())
    if not keys:
        raise UserError(
            f"{folder}: {len(photos)} photos and {len(labels)} labels, but no two share a name; "
            "name each label, a PNG of few colours, like its photo (x.jpg and x.png or x_mask.png)."
        )
    single = [folder / photos[k] for k in photos if k not in labels]
    single += [folder / labels[k] for k in labels if k not in photos]
    pairs = [
        Pair(folder / photos[k], folder / labels[k], _part(photos[k]) or _part(labels[k]))
        for k in keys
    ]
    return pairs, single


def split(pairs: list[Pair]) -> tuple[list[Pair], list[Pair], list[str]]:
    """What to train on, what to validate on, and remarks: a photo never changes sides."""
    if {"train", "val"} <= {p.part for p in pairs}:
        train = [p for p in pairs if p.part == "train"]
        val = [p for p in pairs if p.part == "val"]
        remarks = ["  this split is that of the folders train and val"]
        if others := len(pairs) - len(train) - len(val):
            remarks.append(f"  left out, as they lie in neither of the two: {others} photos")
        return train, val, remarks
    usable = [p for p in pairs if p.part != "test"] or pairs
    remarks = []
    if others := len(pairs) - len(usable):
        remarks.append(f"  left out, as they lie in a folder called test: {others} photos")
    held = [hashlib.sha256(p.photo.stem.encode()).digest()[0] < 256 // 5 for p in usable]
    if not any(held) or all(held):  # too few photos for chance
        held = [i == 0 for i in range(len(usable))]
    train = [p for p, h in zip(usable, held, strict=True) if not h]
    val = [p for p, h in zip(usable, held, strict=True) if h]
    if not train:
        remarks.append("  the only photo is in both: its scores say nothing about other photos")
    return train or val, val, remarks


def _key(label: Path) -> str:
    """The label's name without the words at its end that say that it is one."""
    stem = label.stem.lower()
    while match := LABEL_SUFFIX.fullmatch(stem):
        stem = match[1]
    return stem


def _said(files: list[Path]) -> list[bool | None]:
    """Whether a file is a label, where its folder's name says so: only if labels lie apart."""
    said = [_in_label_folder(p) for p in files]
    return said if True in said and len(set(said)) > 1 else [None] * len(files)


def _in_label_folder(path: Path) -> bool | None:
    for name in (p.name.lower() for p in path.parents):
        if LABEL_FOLDER.fullmatch(name):
            return True
        if PHOTO_FOLDER.fullmatch(name):
            return False
    return None


def _part(path: Path) -> str:
    """The part of a split that the innermost such folder of a relative path names, or ''."""
    found = (SPLIT_FOLDER.get(p.name.lower(), "") for p in path.parents)
    return next(filter(None, found), "")


def _is_label(path: Path, said: bool | None) -> bool:
    """What its folder said, or else: few colours in a coarse grid, in a format without loss."""
    if said is not None:
        return said
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return False
    data = read_file(str(path))
    try:
        pixels = decode.label(data, str(path))
    except UserError:
        if _key(path) != path.stem.lower():  # named as a label
            raise
        decode.image(data, str(path))  # a photo may have 16 bits, but must be whole
        return False
    grid = pixels[:: max(pixels.shape[0] // 64, 1), :: max(pixels.shape[1] // 64, 1)]
    flat = grid.reshape(-1, 1) if grid.ndim == 2 else grid.reshape(-1, 3)
    return len(np.unique(flat, axis=0)) <= MAX_COLORS


def _by_name(folder: Path, files: list[Path], key: Callable[[Path], tuple]) -> dict[tuple, Path]:
    named: dict[tuple, Path] = {}
    for path in files:
        other = named.setdefault(key(path), path)
        if other == path:
            continue
        for p in (folder / other, folder / path):
            if _in_label_folder(p.relative_to(folder)) is None:
                # A label taken for a photo because it is a bad one: what is bad says more.
                decode.label(read_file(str(p)), str(p))
        raise UserError(
            f"{folder / path}: has the name of {folder / other}; rename or remove one of them "
            "(a label must be a PNG of few colours)."
        )
    return named
