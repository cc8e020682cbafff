"""A user's own folder: images/, labels/ and classes.json or .yaml (layout: docs/datasets.md)."""

import colorsys
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8, UInt32

from fastfcn_jax.data.datasets import layout
from fastfcn_jax.data.source import IGNORE_LABEL, DatasetInfo, EncodedSource, LabelTable, Source
from fastfcn_jax.errors import UserError


def load(root: str, split: str) -> Source:
    """Pairs `images/<split>/X.*` with `labels/<split>/X.png`, or reads `<split>.txt` if it exists.

    Raises:
      UserError: something of the layout is missing or classes.json does not fit it.
    """
    base = layout.folder(root, holds="your folder with images/, labels/ and classes.json")
    info, to_classes = read_classes(classes_file(base))
    listing = base / f"{split}.txt"
    if listing.is_file():
        images, labels = layout.listed_pairs(listing, base)
    else:
        holds = f"a folder with images/{split}/ and labels/{split}/, or with {split}.txt"
        images_folder = layout.folder(root, "images", split, holds=holds)
        labels_folder = layout.folder(root, "labels", split, holds=holds)
        images = sorted(
            p for p in images_folder.rglob("*") if p.suffix.lower() in layout.IMAGE_SUFFIXES
        )
        labels = [_label(labels_folder / p.relative_to(images_folder)) for p in images]
    ids = [str(p.relative_to(base).with_suffix("")) for p in images]
    _check_ids(ids, images)
    return EncodedSource(info, ids, layout.pair(images, labels, f"{base} {split}"), to_classes)


def _label(image: Path) -> Path:
    """The label at the image's place among the labels; some programs write `.PNG`."""
    label, upper = image.with_suffix(".png"), image.with_suffix(".PNG")
    return upper if not label.is_file() and upper.is_file() else label


def _check_ids(ids: list[str], images: list[Path]) -> None:
    """One name for two images would give both the label and the predictions of one."""
    first: dict[str, Path] = {}
    for name, image in zip(ids, images, strict=True):
        if first.setdefault(name, image) != image:  # a list may repeat an image
            raise UserError(
                f"{image}: has the name of {first[name]}; rename or remove one of them."
            )


def classes_file(base: Path) -> Path:
    """`classes.yaml` if there is one, else `classes.json`, which may be missing."""
    written = base / "classes.yaml"
    return written if written.is_file() else base / "classes.json"


def read_classes(path: Path) -> tuple[DatasetInfo, "LabelTable | ColorTable"]:
    """Reads classes.json or .yaml: the classes, and how stored labels become class indices.

    Raises:
      UserError: the file is missing or says something that cannot be.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; write the class names there (see docs/datasets.md).")
    try:
        text = path.read_text("utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
        classes: list[Any] = [{"name": c} if isinstance(c, str) else c for c in content["classes"]]
        names = tuple(c["name"] for c in classes)
    except (json.JSONDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f'{path}: expected {{"classes": [{{"name": ...}}, ...]}} ({reason}).'
        ) from error
    kind = content.get("labels", "index")
    ignore = content.get("ignore", [])
    colors = [c.get("color") or _distinct_color(k) for k, c in enumerate(classes)]
    info = DatasetInfo(content.get("name", "folder"), names, np.array(colors, np.uint8))
    if kind == "color":
        if not all("color" in c for c in classes):
            raise UserError(f'{path}: with "labels": "color" every class needs its "color".')
        return info, ColorTable(colors, ignore, str(path))
    if kind != "index":
        raise UserError(f'{path}: "labels" is "index" or "color", not "{kind}".')
    values = [c.get("value", k) for k, c in enumerate(classes)]
    if not all(isinstance(v, int) and 0 <= v <= 255 for v in [*values, *ignore]):
        raise UserError(f"{path}: each class's value, and those to ignore, are integers 0..255.")
    if len(set(values) | set(ignore)) < len(values) + len(set(ignore)):
        raise UserError(f"{path}: a label value stands for two classes, or is ignored as well.")
    return info, LabelTable(values, ignore, f"{path} ({_spelled(values)})")


@dataclass
class ColorTable:
    """RGB label -> class index: `colors` in label order, `ignore` the colours that become 255."""

    colors: list
    ignore: list
    what: str

    def __post_init__(self):
        if len(self.colors) > LabelTable.UNKNOWN:
            raise UserError(f"{self.what}: at most {LabelTable.UNKNOWN} classes fit a label.")
        known = [*map(tuple, self.ignore), *map(tuple, self.colors)]
        if len(set(known)) != len(known):
            raise UserError(f"{self.what}: two classes have the same colour.")
        codes = _code(np.array(known, np.uint32).reshape(-1, 3))
        indices = [IGNORE_LABEL] * len(self.ignore) + list(range(len(self.colors)))
        order = np.argsort(codes)
        self._codes, self._indices = codes[order], np.array(indices, np.uint8)[order]

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
                f"{name}: colour {color} is no class of {self.what}; list it there under "
                '"classes" or "ignore" (a lossy JPEG label cannot be used).'
            )
        return self._indices[position]


def _code(rgb: UInt32[np.ndarray, "*n 3"]) -> UInt32[np.ndarray, "*n"]:
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _distinct_color(k: int) -> list[int]:
    """Colours for classes that name none: steps of the golden angle around the colour circle."""
    rgb = colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.75 - 0.25 * (k % 2), 0.95 - 0.3 * (k % 3 == 2))
    return [round(255 * c) for c in rgb]


def _spelled(values: list[int]) -> str:
    return f"0..{len(values) - 1}" if values == list(range(len(values))) else str(values)
