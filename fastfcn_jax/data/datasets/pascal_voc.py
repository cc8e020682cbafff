"""Pascal VOC 2012: 1464/1449 photographs, 20 classes and the background."""

from pathlib import Path

import numpy as np

from fastfcn_jax.data.datasets import layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source

# Alphabetical, with the devkit's names; the colours of its palette.
CLASSES = (
    ("background", (0, 0, 0)),
    ("aeroplane", (128, 0, 0)),
    ("bicycle", (0, 128, 0)),
    ("bird", (128, 128, 0)),
    ("boat", (0, 0, 128)),
    ("bottle", (128, 0, 128)),
    ("bus", (0, 128, 128)),
    ("car", (128, 128, 128)),
    ("cat", (64, 0, 0)),
    ("chair", (192, 0, 0)),
    ("cow", (64, 128, 0)),
    ("diningtable", (192, 128, 0)),
    ("dog", (64, 0, 128)),
    ("horse", (192, 0, 128)),
    ("motorbike", (64, 128, 128)),
    ("person", (192, 128, 128)),
    ("pottedplant", (0, 64, 0)),
    ("sheep", (128, 64, 0)),
    ("sofa", (0, 192, 0)),
    ("train", (128, 192, 0)),
    ("tvmonitor", (0, 64, 128)),
)
NAMES = tuple(n for n, _ in CLASSES)
PALETTE = np.array([c for _, c in CLASSES], np.uint8)
INFO = DatasetInfo("pascal_voc", NAMES, PALETTE, tuple(range(21)))
LABELS = LabelTable(range(21), [], "Pascal VOC (0 = background, 1..20, 255 = void)")
SPLIT_SIZES = {"train": 1_464, "val": 1_449, "trainval": 2_913}


def load(root: str, split: str) -> Source:
    """Reads JPEGImages/ and SegmentationClass/ by the lists in ImageSets/Segmentation/.

    `root` is the VOC2012 folder, or the one that holds VOCdevkit/. Splits: train, val, trainval.

    Raises:
      UserError: a folder, list or label is missing.
    """
    inner = Path(root, "VOCdevkit", "VOC2012")
    base = inner if inner.is_dir() else Path(root)
    holds = "the VOC2012 folder that holds JPEGImages/ and SegmentationClass/"
    images_folder = layout.folder(str(root) and str(base), "JPEGImages", holds=holds)
    labels_folder = layout.folder(base, "SegmentationClass", holds=holds)
    listing = base / "ImageSets" / "Segmentation" / f"{split}.txt"
    names = layout.listed_names(listing)
    images = [layout.named(images_folder, f"{n}.jpg", str(listing)) for n in names]
    labels = [layout.named(labels_folder, f"{n}.png", str(listing)) for n in names]
    return EncodedSource(INFO, names, layout.pair(images, labels, f"Pascal VOC {split}"), LABELS)
