"""CamVid: 367/101/233 video frames of 480x360, 11 classes (the SegNet release)."""

from pathlib import Path

import numpy as np

from fastfcn_jax import text
from fastfcn_jax.data.datasets import layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source

# Brostow et al. 2009; reduction to 11 classes by Badrinarayanan, Kendall, Cipolla (SegNet).
CLASSES = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
)
INFO = DatasetInfo(
    "camvid",
    tuple(n for n, _ in CLASSES),
    np.array([c for _, c in CLASSES], np.uint8),
    tuple(range(11)),
)
VOID = 11
LABELS = LabelTable(range(11), [VOID], "CamVid (0..10, 11 = unlabelled)")
SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}


def load(root: str, split: str) -> Source:
    """Reads `<split>.txt` (lines of `photo label`), or pairs `<split>/` with `<split>annot/`."""
    holds = "the CamVid folder that holds train/ and trainannot/"
    images_folder = layout.folder(root, split, holds=holds)
    listing = Path(root, f"{split}.txt")
    if listing.is_file() and not _is_foreign(listing):
        images, labels = layout.listed_pairs(listing, Path(root))
    else:
        images = layout.pictures(images_folder, recursive=False)
        labels = [Path(root, f"{split}annot", f"{p.stem}.png") for p in images]
    ids = [p.stem for p in images]
    return EncodedSource(INFO, ids, layout.pair(images, labels, f"CamVid {split}"), LABELS)


def _is_foreign(listing: Path) -> bool:
    """Whether it is one of SegNet's own lists, with absolute paths of its authors' machine."""
    return text.read(listing).lstrip().startswith("/")
