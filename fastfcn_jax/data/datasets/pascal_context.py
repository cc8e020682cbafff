"""Pascal Context: 4998/5105 photographs of VOC 2010, 59 classes (0 = background, ignored)."""

from pathlib import Path

import numpy as np

from fastfcn_jax.data.datasets import layout, pascal_detail
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source
from fastfcn_jax.errors import UserError

# Alphabetical, as the ids of the 459 original categories are; mmsegmentation's colours.
CLASSES = (
    ("aeroplane", (180, 120, 120)),
    ("bag", (6, 230, 230)),
    ("bed", (80, 50, 50)),
    ("bedclothes", (4, 200, 3)),
    ("bench", (120, 120, 80)),
    ("bicycle", (140, 140, 140)),
    ("bird", (204, 5, 255)),
    ("boat", (230, 230, 230)),
    ("book", (4, 250, 7)),
    ("bottle", (224, 5, 255)),
    ("building", (235, 255, 7)),
    ("bus", (150, 5, 61)),
    ("cabinet", (120, 120, 70)),
    ("car", (8, 255, 51)),
    ("cat", (255, 6, 82)),
    ("ceiling", (143, 255, 140)),
    ("chair", (204, 255, 4)),
    ("cloth", (255, 51, 7)),
    ("computer", (204, 70, 3)),
    ("cow", (0, 102, 200)),
    ("cup", (61, 230, 250)),
    ("curtain", (255, 6, 51)),
    ("dog", (11, 102, 255)),
    ("door", (255, 7, 71)),
    ("fence", (255, 9, 224)),
    ("floor", (9, 7, 230)),
    ("flower", (220, 220, 220)),
    ("food", (255, 9, 92)),
    ("grass", (112, 9, 255)),
    ("ground", (8, 255, 214)),
    ("horse", (7, 255, 224)),
    ("keyboard", (255, 184, 6)),
    ("light", (10, 255, 71)),
    ("motorbike", (255, 41, 10)),
    ("mountain", (7, 255, 255)),
    ("mouse", (224, 255, 8)),
    ("person", (102, 8, 255)),
    ("plate", (255, 61, 6)),
    ("platform", (255, 194, 7)),
    ("pottedplant", (255, 122, 8)),
    ("road", (0, 255, 20)),
    ("rock", (255, 8, 41)),
    ("sheep", (255, 5, 153)),
    ("shelves", (6, 51, 255)),
    ("sidewalk", (235, 12, 255)),
    ("sign", (160, 150, 20)),
    ("sky", (0, 163, 255)),
    ("snow", (140, 140, 140)),
    ("sofa", (250, 10, 15)),
    ("table", (20, 255, 0)),
    ("track", (31, 255, 0)),
    ("train", (255, 31, 0)),
    ("tree", (255, 224, 0)),
    ("truck", (153, 255, 0)),
    ("tvmonitor", (0, 0, 255)),
    ("wall", (255, 71, 0)),
    ("water", (0, 235, 255)),
    ("window", (0, 173, 255)),
    ("wood", (31, 0, 255)),
)
INFO = DatasetInfo(
    "pascal_context",
    tuple(n for n, _ in CLASSES),
    np.array([c for _, c in CLASSES], np.uint8),
    tuple(range(1, 60)),
)
LABELS = LabelTable(range(1, 60), [0], "Pascal Context (0 = background, 1..59)")
SPLIT_SIZES = {"train": 4998, "val": 5105}
LABEL_FOLDERS = ("SegmentationClassContext", "SegmentationClassContext59")
ANNOTATIONS = "trainval_merged.json"


def load(root: str, split: str) -> Source:
    """Reads VOC 2010's JPEGImages/ with label maps, or with the Detail annotations.

    Label maps are those of mmsegmentation's converter: `SegmentationClassContext/X.png` and
    `ImageSets/SegmentationContext/<split>.txt`. Without them `trainval_merged.json` is read.
    `root` is the VOC2010 folder, or the one that holds VOCdevkit/.
    """
    inner = Path(root, "VOCdevkit", "VOC2010")
    base = inner if inner.is_dir() else Path(root)
    holds = f"the VOC2010 folder that holds JPEGImages/ and {LABEL_FOLDERS[0]}/ or {ANNOTATIONS}"
    images_folder = layout.folder(str(root) and str(base), "JPEGImages", holds=holds)
    maps = next((base / f for f in LABEL_FOLDERS if (base / f).is_dir()), None)
    if maps is not None:
        images, labels = _with_label_maps(base, images_folder, maps, split)
        files = layout.pair(images, labels, f"Pascal Context {split}")
        return EncodedSource(INFO, [p.stem for p in images], files, LABELS)
    annotations = next(
        (p for p in (base / ANNOTATIONS, Path(root, ANNOTATIONS)) if p.is_file()), None
    )
    if annotations is None:
        raise UserError(f"{base}: neither label maps nor {ANNOTATIONS}; set data.root to {holds}.")
    files = pascal_detail.load(annotations, images_folder, split)
    return EncodedSource(INFO, [Path(p).stem for p in files.images], files, LABELS)


def _with_label_maps(
    base: Path, images_folder: Path, maps: Path, split: str
) -> tuple[list[Path], list[Path]]:
    listing = base / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    names = layout.listed_names(listing)
    images = [layout.named(images_folder, f"{n}.jpg", str(listing)) for n in names]
    return images, [layout.named(maps, f"{n}.png", str(listing)) for n in names]
