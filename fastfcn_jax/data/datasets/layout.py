"""Finding files of a data set in folders, with one clear sentence when something is missing."""

import os
from pathlib import Path

from fastfcn_jax.data.source import Files
from fastfcn_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def folder(root: str | os.PathLike, *parts: str, holds: str) -> Path:
    """`root/parts`, which must be a folder.

    Raises:
      UserError: it is not; `holds` says in words what `root` should be.
    """
    if not str(root):
        raise UserError(f"data.root is empty; set it to {holds}.")
    path = Path(root, *parts)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; set data.root to {holds}.")
    return path


def pair(images: list[Path], labels: list[Path], what: str) -> Files:
    """Files to read, each image beside its label.

    Raises:
      UserError: no image at all, or an image whose label does not exist.
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


def listed_pairs(listing: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Images and labels named in a text file of `image label` lines relative to `root`.

    Raises:
      UserError: a line that is not two names, or an image that does not exist.
    """
    images, labels = [], []
    for number, line in enumerate(listing.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        # A tab lets names hold blanks.
        names = line.strip().split("\t") if "\t" in line else line.split()
        if len(names) != 2:
            raise UserError(f"{listing}, line {number}: expected 'image label', got '{line}'.")
        if not (root / names[0]).is_file():
            raise UserError(f"{listing}, line {number}: {root / names[0]} does not exist.")
        images.append(root / names[0])
        labels.append(root / names[1])
    return images, labels
