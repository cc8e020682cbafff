"""Finds the files of a data set in folders, with one clear sentence if something is missing."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastfcn_jax import text
from fastfcn_jax.data import listing
from fastfcn_jax.data.listing import IMAGE_SUFFIXES
from fastfcn_jax.data.source import Files
from fastfcn_jax.errors import UserError


def folder(root: str | os.PathLike, *parts: str, holds: str) -> Path:
    """The folder `root/parts`.

    Raises:
      UserError: it does not exist; `holds` says in words what `root` should be.
    """
    if not str(root):
        raise UserError(f"data.root is empty; set it to {holds}.")
    path = Path(root, *parts)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; set data.root to {holds}.")
    return path


def pair(images: list[Path], labels: list[Path], what: str) -> Files:
    """Pairs each image with its label.

    Raises:
      UserError: there is no image, or the label of one does not exist.
    """
    if not images:
        raise UserError(f"{what}: no image found; check data.root and the split.")
    missing = [p for p in zip(images, labels, strict=True) if not p[1].is_file()]
    if missing:
        image, label = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{image}: no label, {label} does not exist{more}; add it or remove the image."
        )
    return Files(tuple(map(str, images)), tuple(map(str, labels)))


def pictures(
    folder: Path, *, suffixes: Sequence[str] = IMAGE_SUFFIXES, recursive: bool = True
) -> list[Path]:
    """Files of a folder with these suffixes in any case; prints which entries cannot be read."""
    found = listing.below(folder, recursive=recursive)
    for sentence in found.unreadable:
        print(f"left out: {text.shown(sentence)}", file=sys.stderr)
    return [p for p in found.files if p.name.lower().endswith(tuple(suffixes))]


def tiles(root: str, split: str) -> tuple[list[Path], list[Path]]:
    """Images of `img_dir/<split>` and labels of the same names in `ann_dir/<split>`, all PNG.

    mmsegmentation's converters write this layout.
    """
    holds = "a folder with img_dir/ and ann_dir/"
    images_folder = folder(root, "img_dir", split, holds=holds)
    labels_folder = folder(root, "ann_dir", split, holds=holds)
    images = pictures(images_folder, suffixes=(".png",), recursive=False)
    return images, [labels_folder / p.name for p in images]


def listed_names(file: Path) -> list[str]:
    """Names of a text file with one per line.

    Raises:
      UserError: the file does not exist.
    """
    if not file.is_file():
        raise UserError(f"{file}: missing; it lists the photos of the split, one name per line.")
    return text.read(file).split()


def listed_pairs(file: Path, root: Path) -> tuple[list[Path], list[Path]]:
    r"""Images and labels named in a text file of `image label` lines relative to `root`.

    In a name, bytes that are not UTF-8, tabs and the like are written as `\xdf`.

    Raises:
      UserError: a line that is not two names below `root`, or an image that does not exist.
    """
    images, labels = [], []
    for number, line in enumerate(text.lines(text.read(file)), 1):
        if not line.strip():
            continue
        # With a tab between them, names may contain spaces.
        names = line.strip().split("\t") if "\t" in line else line.split()
        if len(names) != 2:
            raise UserError(f"{file}, line {number}: expected 'image label', got '{line[:200]}'.")
        image, label = (named(root, text.unescaped(n), f"{file}, line {number}") for n in names)
        if not image.is_file():
            raise UserError(f"{file}, line {number}: {text.shown(image)} does not exist.")
        images.append(image)
        labels.append(label)
    return images, labels


def named(root: Path, name: str, where: str) -> Path:
    """The path of a file named in a list.

    Raises:
      UserError: the path leaves `root`; `where` is the list's line, for the message.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{where}: {text.shown(name)} is not a path below {root}; write it relative to that "
            "folder, or set data.root to one that holds all files."
        )
    return root / path
