"""Turns a folder of photos and labels into a data set: finds pairs and classes, makes a split."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fastfcn_jax.data import decode
from fastfcn_jax.data.source import IGNORE_LABEL, Encoded, check_sizes, read_file
from fastfcn_jax.doctor.pairs import Pair, find_pairs, split
from fastfcn_jax.errors import UserError

MAX_CLASSES = 254
CONFIG_NAME = "fastfcn_config.py"
WRITTEN = ("classes.json", "train.txt", "val.txt", CONFIG_NAME)


def adopt(folder: Path, *, overwrite: bool = False) -> Iterator[str]:
    """Writes classes.json, train.txt, val.txt and a configuration into `folder`.

    Photos and labels may lie in any sub-folders; a label is known by its folder's name or its few
    colours and is paired with its photo by its name (`x.jpg` with `x.png`, `x_mask.png`,
    `labels/x.png`). Folders called train and val are the split; without them one photo in five,
    chosen by its name, is kept for validation. All files are read before the first is written.

    Yields:
      The lines of a report, the next command last.

    Raises:
      UserError: no pairs, a file that cannot be used, labels of both kinds, or files of an
        earlier time that would be lost.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set --folder to the one with your photos.")
    existing = [n for n in WRITTEN if (folder / n).exists()]
    if existing and not overwrite:
        raise UserError(
            f"{folder / existing[0]}: exists; add --overwrite to replace it "
            f"(the old one is kept as {existing[0]}.bak)."
        )
    pairs, single = find_pairs(folder)
    yield f"{len(pairs)} photos with a label each"
    for path in single[:5]:
        yield f"  left out, without a partner: {path.relative_to(folder)}"
    if len(single) > 5:
        yield f"  ... and {len(single) - 5} more without a partner"
    train, val, remarks = split(pairs)
    counts, sizes = survey(list(dict.fromkeys(train + val)))
    classes, remark = find_classes(counts, read_names(folder), folder)
    yield from _described(classes, counts)
    yield f"{len(train)} photos to train on, {len(val)} to validate"
    yield from remarks + remark
    texts = {
        "train.txt": _listing(train, folder),
        "val.txt": _listing(val, folder),
        "classes.json": _one_class_a_line(classes),
        CONFIG_NAME: configuration(folder, sizes, len(train)),
    }
    for kept in _write(folder, texts):
        yield f"kept the old file as {kept}"
    yield f"wrote {', '.join(WRITTEN)} in {folder}; put names to the classes in classes.json"
    yield "next (on a GPU without :small):"
    small = f"{folder / CONFIG_NAME}:small"
    yield f"  fastfcn doctor --config {small} --images doctor"
    yield f"  fastfcn train --config {small} --workdir runs/{folder.resolve().name}-small"


def survey(pairs: list[Pair]) -> tuple[Counter, list[tuple[int, int]]]:
    """Pixels of each value or (r, g, b) in the labels, and (height, width) of every photo.

    Raises:
      UserError: a photo or a label that cannot be used, or the two differ in size.
    """
    counts, sizes = Counter(), []
    with ThreadPoolExecutor() as pool:
        for found, size in pool.map(_examined, pairs):
            counts.update(found)
            sizes.append(size)
    return counts, sizes


def find_classes(counts: Counter, names: dict, folder: Path) -> tuple[dict, list[str]]:
    """The content of classes.json from the label values that occur, and a remark about them.

    255 of an index label and black of a colour label are ignored unless `names` (colour or value
    -> name) has them, or a single class would remain.

    Raises:
      UserError: index and colour labels are mixed, or the colours are too many to be classes.
    """
    kinds = {type(v) for v in counts}
    if len(kinds) > 1:
        raise UserError(
            f"{folder}: some labels are colour pictures, some index images; store all in one way."
        )
    if len(counts) > MAX_CLASSES:
        raise UserError(
            f"{folder}: {len(counts)} different colours in the labels; they were saved with "
            "loss or resized smoothly. Export them again as PNG without antialiasing."
        )
    is_color = kinds == {tuple}
    void: tuple | int = (0, 0, 0) if is_color else IGNORE_LABEL
    may_ignore = void in counts and void not in names
    is_binary = may_ignore and len(counts) == 2
    ignore: list = [void] if may_ignore and len(counts) > 2 else []
    key = "color" if is_color else "value"
    classes = [
        {"name": names.get(v, f"class_{k}"), key: list(v) if is_color else v}
        for k, v in enumerate(sorted(v for v in counts if v not in ignore))
    ]
    content = {
        "labels": "color" if is_color else "index",
        "classes": classes,
        "ignore": [list(v) if is_color else v for v in ignore],
    }
    remark = f"  {void} is a class here, not ignored: there is only one other {key}"
    return content, [remark] if is_binary else []


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


def configuration(folder: Path, sizes: list[tuple[int, int]], count: int) -> str:
    """The text of an experiment file that fits the size and number of the photos."""
    height, width = (int(x) for x in np.median(sizes, axis=0))
    factor = min(1.0, 2048 / max(height, width), 1024 / min(height, width))
    scale = (round(max(height, width) * factor), round(min(height, width) * factor))
    height, width = round(height * factor), round(width * factor)
    crop = tuple(max(min(512, s) // 32 * 32, 32) for s in (height, width))
    batch = min(8, count)
    steps = int(np.clip(count * 100 // batch, 2_000, 40_000))
    small = tuple(max(min(256, s // 2) // 32 * 32, 32) for s in (height, width))
    return f'''"""FastFCN with a PSP head on the photos in {folder.resolve().name}.

fastfcn train --config {CONFIG_NAME}          ResNet-50, for a GPU
fastfcn train --config {CONFIG_NAME}:small    ResNet-18 of half the width, for a CPU

Better from weights trained on a large data set, if you have some:
--config.init.checkpoint=DIR --config.init.reset_head=True
"""

from pathlib import Path

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant

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


def _examined(pair: Pair) -> tuple[dict, tuple[int, int]]:
    """Value or (r, g, b) -> pixels of the label, and the photo's size."""
    photo, label = str(pair.photo), str(pair.label)
    files = Encoded(read_file(photo), read_file(label), photo, label)
    if files.label.startswith(decode.JPEG):
        raise UserError(f"{label}: a label in JPEG, which changes colours; export it as PNG.")
    stored = decode.label(files.label, label)
    image = decode.image(files.image, photo)
    check_sizes(files, image, stored)
    found = _values(stored)
    if len(found) > MAX_CLASSES:
        raise UserError(
            f"{label}: {len(found)} different colours in a label, which was saved with loss or "
            "resized smoothly; export it again as PNG without antialiasing."
        )
    return found, image.shape[:2]


def _values(pixels: np.ndarray) -> dict:
    """Value or (r, g, b) -> pixels."""
    if pixels.ndim == 2:
        found, counts = np.unique(pixels, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))
    code = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, counts = np.unique(code, return_counts=True)
    colors = [(c >> 16, c >> 8 & 255, c & 255) for c in found.tolist()]
    return dict(zip(colors, counts.tolist(), strict=True))


def _described(classes: dict, counts: Counter) -> Iterator[str]:
    """A line for each class and each ignored value."""
    yield f"{classes['labels']} labels, {len(classes['classes'])} classes:"
    values = [tuple(c["color"]) if "color" in c else c["value"] for c in classes["classes"]]
    total = sum(counts[v] for v in values)
    for entry, value in zip(classes["classes"], values, strict=True):
        shown, share = entry.get("color", value), 100 * counts[value] / total
        yield f"  {entry['name']:20} {shown!s:18} {share:6.2f} % of the pixels"
    for value in classes["ignore"]:
        yield f"  {'(ignored)':20} {value!s:18} make it a class in classes.json if it is one"


def _listing(pairs: list[Pair], folder: Path) -> str:
    """Lines `photo<tab>label`."""
    names = ((p.photo.relative_to(folder), p.label.relative_to(folder)) for p in pairs)
    return "".join(f"{photo}\t{label}\n" for photo, label in names)


def _one_class_a_line(content: dict) -> str:
    """JSON that is easy to edit by hand."""
    classes = ",\n".join(
        f"  {json.dumps(entry, ensure_ascii=False)}" for entry in content["classes"]
    )
    kind, ignore = json.dumps(content["labels"]), json.dumps(content["ignore"])
    return f'{{"labels": {kind},\n "classes": [\n{classes}],\n "ignore": {ignore}}}\n'


def _write(folder: Path, texts: dict[str, str]) -> list[str]:
    """Puts all files in place, or none; the names under which files with other text were kept."""
    unfinished = {name: folder / f".{name}.unfinished" for name in texts}
    try:
        for name, text in texts.items():
            unfinished[name].write_text(text, "utf-8")
        kept = [_kept(folder / n) for n, text in texts.items() if _differs(folder / n, text)]
        for name, path in unfinished.items():
            os.replace(path, folder / name)
    except OSError as error:
        for path in unfinished.values():
            path.unlink(missing_ok=True)
        raise UserError(
            f"{folder}: cannot be written ({error}); mend that, or copy the photos elsewhere."
        ) from error
    return kept


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() != text.encode()


def _kept(path: Path) -> str:
    """Copies a file, which may be the user's own, to the first free name."""
    names = (f"{path.name}.bak{number or ''}" for number in range(1000))
    name = next(n for n in names if not (path.parent / n).exists())
    shutil.copy2(path, path.parent / name)
    return name
