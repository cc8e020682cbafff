"""Cityscapes: 2975/500/1525 street scenes of 2048x1024, 19 classes of 34 label ids."""

from pathlib import Path

import numpy as np

from fastfcn_jax.data import layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source

# (label id, name, colour) in train-id order; cityscapesScripts, helpers/labels.py.
CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
INFO = DatasetInfo(
    "cityscapes", tuple(n for _, n, _ in CLASSES), np.array([c for *_, c in CLASSES], np.uint8)
)
_EVALUATED = [i for i, *_ in CLASSES]
LABEL_IDS = LabelTable(
    _EVALUATED, [i for i in range(34) if i not in _EVALUATED], "Cityscapes (label ids 0..33)"
)
TRAIN_IDS = LabelTable(range(19), [], "Cityscapes (train ids 0..18, 255 = ignore)")
SPLIT_SIZES = {"train": 2975, "val": 500, "test": 1525}
IMAGE_SUFFIX = "_leftImg8bit.png"


def load(root: str, split: str) -> Source:
    """Reads leftImg8bit/ with gtFine/: `labelIds` as published, else prepared `labelTrainIds`."""
    holds = "the Cityscapes folder that holds leftImg8bit/ and gtFine/"
    images_folder = layout.folder(root, "leftImg8bit", split, holds=holds)
    labels_folder = layout.folder(root, "gtFine", split, holds=holds)
    images = sorted(images_folder.glob(f"*/*{IMAGE_SUFFIX}"))
    ids = [p.name.removesuffix(IMAGE_SUFFIX) for p in images]

    def labels(kind: str) -> list[Path]:
        return [
            labels_folder / p.parent.name / f"{i}_gtFine_{kind}.png"
            for p, i in zip(images, ids, strict=True)
        ]

    as_published = labels("labelIds")
    use_ids = (
        not as_published or as_published[0].is_file() or not labels("labelTrainIds")[0].is_file()
    )
    paths, table = (as_published, LABEL_IDS) if use_ids else (labels("labelTrainIds"), TRAIN_IDS)
    return EncodedSource(INFO, ids, layout.pair(images, paths, f"Cityscapes {split}"), table)
