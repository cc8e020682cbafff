"""LoveDA: 2522/1669/1796 aerial images of 1024x1024 at 0.3 m, 7 classes of land cover."""

from pathlib import Path

import numpy as np

from fastfcn_jax.data.datasets import layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source

# Names and colours as in mmsegmentation 1.2.2, mmseg/datasets/loveda.py.
CLASSES = (
    ("background", (255, 255, 255)),
    ("building", (255, 0, 0)),
    ("road", (255, 255, 0)),
    ("water", (0, 0, 255)),
    ("barren", (159, 129, 183)),
    ("forest", (0, 255, 0)),
    ("agricultural", (255, 195, 128)),
)
INFO = DatasetInfo(
    "loveda",
    tuple(n for n, _ in CLASSES),
    np.array([c for _, c in CLASSES], np.uint8),
    tuple(range(1, 8)),
)
LABELS = LabelTable(range(1, 8), [0], "LoveDA (0 = no data, 1..7)")
SCENES = ("Rural", "Urban")
SPLIT_SIZES = {"train": 2_522, "val": 1_669}


def load(root: str, split: str) -> Source:
    """Reads `Train/{Rural,Urban}/{images_png,masks_png}`, or mmsegmentation's img_dir/, ann_dir/.

    Raises:
      UserError: neither layout is found, or an image has no label.
    """
    if str(root) and Path(root, "img_dir").is_dir():
        images, labels = layout.tiles(root, split)
    else:
        holds = "the LoveDA folder that holds Train/ and Val/"
        images, labels = [], []
        for scene in SCENES:
            parts = (split.capitalize(), scene)
            images_folder = layout.folder(root, *parts, "images_png", holds=holds)
            labels_folder = layout.folder(root, *parts, "masks_png", holds=holds)
            found = layout.pictures(images_folder, suffixes=(".png",), recursive=False)
            images += found
            labels += [labels_folder / p.name for p in found]
    files = layout.pair(images, labels, f"LoveDA {split}")
    return EncodedSource(INFO, [p.stem for p in images], files, LABELS)
