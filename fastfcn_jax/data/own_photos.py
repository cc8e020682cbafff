"""Turns a folder of photos and labels into a data set: finds pairs and classes, makes a split."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastfcn_jax.data import decode, layout
from fastfcn_jax.data.source import IGNORE_LABEL, read_file
from fastfcn_jax.errors import UserError

LABEL_SUFFIX = re.compile(
    r"(.+)[-_. ](labels?|labelids|masks?|seg(mentations?)?|annot(ations?)?|gt|gtfine|truth|l)"
)
MAX_COLORS = 64  # more distinct values than this in a coarse grid: a photo, not a label
CONFIG_NAME = "fastfcn_config.py"
WRITTEN = ("classes.json", "train.txt", "val.txt", CONFIG_NAME)


@dataclass(frozen=True)
class Pairs:
    """Photos with their labels, in the order of their names, and what has no partner."""

    photos: list[Path]
    labels: list[Path]
    single: list[Path]


def adopt(folder: Path, *, overwrite: bool = False) -> Iterator[str]:
    """Writes classes.json, train.txt, val.txt and a configuration into `folder`.

    Photos and labels may lie in any sub-folders; a label is known by its few colours and is
    paired with its photo by its name (`x.jpg` with `x.png`, `x_mask.png`, `labels/x.png`).
    One photo in five, chosen by its name, is kept for validation.

    Yields:
      The lines of a report, the next command last.

    Raises:
      UserError: no pairs, labels of both kinds, or files of an earlier time that would be lost.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set --folder to the one with your photos.")
    existing = [n for n in WRITTEN if (folder / n).exists()]
    if existing and not overwrite:
        raise UserError(f"{folder / existing[0]}: exists; add --overwrite to replace it.")
    pairs = find_pairs(folder)
    yield f"{len(pairs.photos)} photos with a label each"
    for path in pairs.single[:5]:
        yield f"  left out, without a partner: {path.relative_to(folder)}"
    if len(pairs.single) > 5:
        yield f"  ... and {len(pairs.single) - 5} more without a partner"
    classes, counts = find_classes(pairs.labels, read_names(folder))
    yield f"{classes['labels']} labels, {len(classes['classes'])} classes:"
    total = sum(counts)
    for entry, count in zip(classes["classes"], counts, strict=True):
        shown = entry.get("color", entry.get("value"))
        yield f"  {entry['name']:20} {shown!s:18} {100 * count / total:6.2f} % of the pixels"
    for value in classes["ignore"]:
        yield f"  {'(ignored)':20} {value!s:18} make it a class in classes.json if it is one"
    train, val = split(pairs, folder)
    yield f"{len(train)} photos to train on, {len(val)} to validate"
    _write(folder / "train.txt", "".join(f"{line}\n" for line in train))
    _write(folder / "val.txt", "".join(f"{line}\n" for line in val))
    _write(folder / "classes.json", _one_class_a_line(classes))
    _write(folder / CONFIG_NAME, configuration(folder, pairs.photos, len(train)))
    yield f"wrote {', '.join(WRITTEN)} in {folder}; put names to the classes in classes.json"
    yield "next (on a GPU without :small):"
    small = f"{folder / CONFIG_NAME}:small"
    yield f"  python -m fastfcn_jax.doctor --config {small} --images doctor"
    yield f"  python train.py --config {small} --workdir runs/{folder.resolve().name}-small"


def find_pairs(folder: Path) -> Pairs:
    """Pairs every photo with the label of the same name, extension and label words aside.

    Raises:
      UserError: there is no pair, or two labels claim one photo.
    """
    files = [
        p
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in layout.IMAGE_SUFFIXES and not p.name.startswith(".")
    ]
    if not files:
        raise UserError(f"{folder}: no pictures in it; set --folder to the one with your photos.")
    with ThreadPoolExecutor() as pool:
        is_label = list(pool.map(_is_label, files))
    photos: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for path, label in zip(files, is_label, strict=True):
        group, key = (labels, _key(path)) if label else (photos, path.stem.lower())
        if key in group:
            raise UserError(f"{path}: has the name of {group[key]}; rename or remove one of them.")
        group[key] = path
    keys = sorted(photos.keys() & labels.keys())
    if not keys:
        raise UserError(
            f"{folder}: {len(photos)} photos and {len(labels)} labels, but no two share a name; "
            "name each label like its photo (x.jpg and x.png or x_mask.png)."
        )
    single = [photos[k] for k in photos if k not in labels]
    single += [labels[k] for k in labels if k not in photos]
    return Pairs([photos[k] for k in keys], [labels[k] for k in keys], single)


def find_classes(labels: list[Path], names: dict) -> tuple[dict, list[int]]:
    """The content of classes.json, and the pixels of each class, from all values that occur.

    255 of an index label and black of a colour label are ignored unless `names` (colour or value
    -> name) has them.

    Raises:
      UserError: index and colour labels are mixed, or the colours are too many to be classes.
    """
    counts: dict = {}
    with ThreadPoolExecutor() as pool:
        for found in pool.map(_values, labels):
            for value, count in found.items():
                counts[value] = counts.get(value, 0) + count
    kinds = {type(v) for v in counts}
    if len(kinds) > 1:
        raise UserError(f"{labels[0].parent}: some labels are colour pictures, some index images.")
    if len(counts) > 254:
        raise UserError(
            f"{labels[0]}: {len(counts)} different colours in the labels; they were saved with "
            "loss or resized smoothly. Export them again as PNG without antialiasing."
        )
    is_color = kinds == {tuple}
    void = (0, 0, 0) if is_color else IGNORE_LABEL
    ignore = [v for v in counts if v == void and v not in names and len(counts) > 1]
    values = sorted(v for v in counts if v not in ignore)
    key = "color" if is_color else "value"
    classes = [
        {"name": names.get(v, f"class_{k}"), key: list(v) if is_color else v}
        for k, v in enumerate(values)
    ]
    content = {
        "labels": "color" if is_color else "index",
        "classes": classes,
        "ignore": [list(v) if is_color else v for v in ignore],
    }
    return content, [counts[v] for v in values]


def read_names(folder: Path) -> dict:
    """Class names from a text or CSV file of `r g b name`, `name,r,g,b` or `value name` lines."""
    names: dict = {}
    for path in sorted([*folder.glob("*.txt"), *folder.glob("*.csv")]):
        if path.name in WRITTEN:
            continue
        for line in path.read_text("utf-8", errors="replace").splitlines():
            parts = [p for p in re.split(r"[,;\t ]+", line.strip()) if p]
            numbers = [int(p) for p in parts if p.isdigit() and int(p) < 256]
            words = [p for p in parts if not p.isdigit()]
            if words and len(numbers) == 3:
                names[tuple(numbers)] = " ".join(words)
            elif words and len(numbers) == 1 and len(parts) < 6:
                names[numbers[0]] = " ".join(words)
    return names


def split(pairs: Pairs, folder: Path) -> tuple[list[str], list[str]]:
    """Lines `photo<tab>label` to train on and to validate: a photo never changes sides."""
    lines = [
        f"{photo.relative_to(folder)}\t{label.relative_to(folder)}"
        for photo, label in zip(pairs.photos, pairs.labels, strict=True)
    ]
    order = [hashlib.sha256(p.stem.encode()).digest()[0] < 256 // 5 for p in pairs.photos]
    if not any(order) or all(order):  # too few photos for chance
        order = [i == 0 for i in range(len(lines))]
    train = [line for line, held in zip(lines, order, strict=True) if not held]
    val = [line for line, held in zip(lines, order, strict=True) if held]
    return train or val, val


def configuration(folder: Path, photos: list[Path], count: int) -> str:
    """The text of an experiment file that fits the size and number of the photos."""
    sample = photos[:: max(len(photos) // 20, 1)]
    sizes = np.array([_decoded(p).shape[:2] for p in sample])
    height, width = (int(x) for x in np.median(sizes, axis=0))
    factor = min(1.0, 2048 / max(height, width), 1024 / min(height, width))
    scale = (round(max(height, width) * factor), round(min(height, width) * factor))
    height, width = round(height * factor), round(width * factor)
    crop = tuple(max(min(512, s) // 32 * 32, 32) for s in (height, width))
    batch = min(8, count)
    steps = int(np.clip(count * 100 // batch, 2_000, 40_000))
    small = tuple(max(min(256, s // 2) // 32 * 32, 32) for s in (height, width))
    return f'''"""FastFCN with a PSP head on the photos in {folder.resolve().name}.

python train.py --config {CONFIG_NAME}          ResNet-50, for a GPU
python train.py --config {CONFIG_NAME}:small    ResNet-18 of half the width, for a CPU

Better from weights trained on a large data set, if you have some:
--config.init.checkpoint=DIR --config.init.reset_head=True
"""

from pathlib import Path

from fastfcn_jax.base_config import get_config as base
from fastfcn_jax.config import apply_variant

SMALL = {{
    "model.backbone": "resnet18",
    "model.base_width": 32,
    "model.neck_channels": 64,
    "model.head_channels": 64,
    "model.auxiliary_channels": 32,
    "data.crop_size": {small},
    "optim.lr": 0.05,
    "optim.warmup_steps": 20,
    "train.steps": 500,
    "train.batch_size": {min(4, count)},
    "train.log_every": 20,
    "train.eval_every": 250,
    "train.save_every": 100,
}}


def get_config(variant: str = ""):
    c = base()
    c.data.name = "folder"
    c.data.root = str(Path(__file__).resolve().parent)  # the folder may be moved
    c.data.crop_size = {crop}  # height, width
    c.data.resize_scale = {scale}  # the photos' own size, long side first
    c.data.test_scale = {scale}
    c.train.update(steps={steps}, batch_size={batch})
    c.train.update(eval_every={steps // 10}, save_every={steps // 10})
    c.eval.update(crop_size={crop}, stride={tuple(s * 2 // 3 for s in crop)})
    return apply_variant(c, variant, {{"small": SMALL}})
'''


def _key(label: Path) -> str:
    """The label's name without the words at its end that say that it is one."""
    stem = label.stem.lower()
    while match := LABEL_SUFFIX.fullmatch(stem):
        stem = match[1]
    return stem


def _is_label(path: Path) -> bool:
    """Few colours in a coarse grid of pixels, in a format without loss."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return False
    data = read_file(str(path))
    try:
        pixels = decode.label(data, str(path))
    except UserError:
        return False
    grid = pixels[:: max(pixels.shape[0] // 64, 1), :: max(pixels.shape[1] // 64, 1)]
    flat = grid.reshape(-1, 1) if grid.ndim == 2 else grid.reshape(-1, 3)
    return len(np.unique(flat, axis=0)) <= MAX_COLORS


def _values(path: Path) -> dict:
    """Value or (r, g, b) -> pixels."""
    pixels = decode.label(read_file(str(path)), str(path))
    if pixels.ndim == 2:
        found, counts = np.unique(pixels, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))
    code = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, counts = np.unique(code, return_counts=True)
    colors = [(c >> 16, c >> 8 & 255, c & 255) for c in found.tolist()]
    return dict(zip(colors, counts.tolist(), strict=True))


def _one_class_a_line(content: dict) -> str:
    """JSON that is easy to edit by hand."""
    classes = ",\n".join(
        f"  {json.dumps(entry, ensure_ascii=False)}" for entry in content["classes"]
    )
    kind, ignore = json.dumps(content["labels"]), json.dumps(content["ignore"])
    return f'{{"labels": {kind},\n "classes": [\n{classes}],\n "ignore": {ignore}}}\n'


def _decoded(path: Path) -> np.ndarray:
    return decode.image(read_file(str(path)), str(path))


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, "utf-8")
    os.replace(unfinished, path)
