"""A user's own folder: images/, labels/ and classes.json or .yaml (layout: docs/datasets.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt32

from fastfcn_jax.data.datasets import class_list, layout
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import IGNORE_LABEL, DatasetInfo, EncodedSource, LabelTable, Source
from fastfcn_jax.errors import UserError


def load(root: str, split: str, pixel: PixelType = RGB) -> Source:
    """Pairs `images/<split>/X.*` with `labels/<split>/X.png`, or reads `<split>.txt` if it exists.

    The images must be of type `pixel`.

    Raises:
      UserError: a file or folder is missing, or classes.json is invalid.
    """
    base = layout.folder(root, holds="your folder with images/, labels/ and classes.json")
    info, to_classes = read_classes(class_list.file_of(base))
    listing = base / f"{split}.txt"
    if listing.is_file():
        images, labels = layout.listed_pairs(listing, base)
    else:
        holds = f"a folder with images/{split}/ and labels/{split}/, or with {split}.txt"
        images_folder = layout.folder(root, "images", split, holds=holds)
        labels_folder = layout.folder(root, "labels", split, holds=holds)
        images = layout.pictures(images_folder)
        labels = [_label(labels_folder / p.relative_to(images_folder)) for p in images]
    ids = [str(p.relative_to(base).with_suffix("")) for p in images]
    _check_ids(ids, images)
    files = layout.pair(images, labels, f"{base} {split}")
    return EncodedSource(info, ids, files, to_classes, pixel)


def _label(image: Path) -> Path:
    """The label with the image's name; some programs write `.PNG`."""
    label, upper = image.with_suffix(".png"), image.with_suffix(".PNG")
    return upper if not label.is_file() and upper.is_file() else label


def _check_ids(ids: list[str], images: list[Path]) -> None:
    """Refuses two images with one name: they would share a label and overwrite predictions."""
    first: dict[str, Path] = {}
    for name, image in zip(ids, images, strict=True):
        if first.setdefault(name, image) != image:  # a list may repeat an image
            raise UserError(
                f"{image}: has the name of {first[name]}; rename or remove one of them."
            )


def read_classes(path: Path) -> tuple[DatasetInfo, "LabelTable | ColorTable"]:
    """Reads classes.json or .yaml: the classes, and how stored labels become class indices.

    Raises:
      UserError: the file is missing or invalid.
    """
    found = class_list.read(path)
    if found.is_color:
        return found.info, ColorTable([c.colors for c in found.classes], found.ignore, str(path))
    what = f"{path} ({_spelled(found.values)})"
    return found.info, LabelTable(found.values, found.ignore, what)


@dataclass
class ColorTable:
    """Maps RGB labels to class indices: `colors` of each class in label order; colours in `ignore`
    become 255. No colour may occur twice.
    """

    colors: Sequence[Sequence[class_list.Color]]
    ignore: Sequence[class_list.Color]
    what: str

    def __post_init__(self):
        known = [(color, k) for k, colors in enumerate(self.colors) for color in colors]
        known += [(color, IGNORE_LABEL) for color in self.ignore]
        codes = _code(np.array([color for color, _ in known], np.uint32).reshape(-1, 3))
        order = np.argsort(codes)
        self._codes = codes[order]
        self._indices = np.array([index for _, index in known], np.uint8)[order]

    def __call__(self, stored: np.ndarray, name: str) -> UInt8[np.ndarray, "h w"]:
        if stored.ndim != 3:
            raise UserError(
                f'{name}: an index label, while {self.what} says "labels": "color"; say "index".'
            )
        codes = _code(stored.astype(np.uint32))
        position = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        wrong = self._codes[position] != codes
        if wrong.any():
            color = stored[wrong][0].tolist()
            raise UserError(
                f"{name}: colour {color} is not a class of {self.what}; list it there under "
                '"classes" or "ignore" (a lossy JPEG label cannot be used).'
            )
        return self._indices[position]


def _code(rgb: UInt32[np.ndarray, "*n 3"]) -> UInt32[np.ndarray, "*n"]:
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _spelled(values: Sequence[Sequence[int]]) -> str:
    if all(len(v) == 1 and v[0] == k for k, v in enumerate(values)):
        return f"0..{len(values) - 1}"
    return str([v[0] if len(v) == 1 else list(v) for v in values])
