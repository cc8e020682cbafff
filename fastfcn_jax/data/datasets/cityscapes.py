"""Cityscapes: 2975/500/1525 street scenes of 2048x1024, 19 classes of 34 label ids."""

from pathlib import Path, PurePosixPath

import numpy as np

from fastfcn_jax.data import listing
from fastfcn_jax.data.datasets import archives, layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source
from fastfcn_jax.errors import UserError

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
    "cityscapes",
    tuple(n for _, n, _ in CLASSES),
    np.array([c for *_, c in CLASSES], np.uint8),
    tuple(i for i, *_ in CLASSES),
)
_EVALUATED = [i for i, *_ in CLASSES]
LABEL_IDS = LabelTable(
    _EVALUATED, [i for i in range(34) if i not in _EVALUATED], "Cityscapes (label ids 0..33)"
)
TRAIN_IDS = LabelTable(range(19), [], "Cityscapes (train ids 0..18, 255 = ignore)")
LABELS = LABEL_IDS  # as published
SPLIT_SIZES = {"train": 2975, "val": 500, "test": 1525}
IMAGE_SUFFIX = "_leftImg8bit.png"


ARCHIVES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")


def load(root: str, split: str) -> Source:
    """Reads leftImg8bit/ with gtFine/, unpacked or from the two official zip files.

    Labels are the published `labelIds`, or else `labelTrainIds` made from them.

    Raises:
      UserError: neither layout is found, or an image has no label.
    """
    photos, labels_zip = (str(Path(root, name)) for name in ARCHIVES)
    zipped = Path(photos).is_file() and Path(labels_zip).is_file()
    if zipped and not Path(root, "leftImg8bit").is_dir():
        return _from_archives(photos, labels_zip, split)
    holds = "the Cityscapes folder that holds leftImg8bit/ and gtFine/, or their two zip files"
    images_folder = layout.folder(root, "leftImg8bit", split, holds=holds)
    labels_folder = layout.folder(root, "gtFine", split, holds=holds)
    images = _photographs(images_folder)

    def labels(kind: str) -> list[Path]:
        names = [_label_name(p.name, kind) for p in images]
        return [labels_folder / p.parent.name / n for p, n in zip(images, names, strict=True)]

    paths, table = labels("labelIds"), LABEL_IDS
    if images and not paths[0].is_file() and labels("labelTrainIds")[0].is_file():
        paths, table = labels("labelTrainIds"), TRAIN_IDS
    files = layout.pair(images, paths, f"Cityscapes {split}")
    return EncodedSource(INFO, [_id(p.name) for p in images], files, table)


def _photographs(folder: Path) -> list[Path]:
    """Images in the city folders."""
    found = layout.pictures(folder, suffixes=(IMAGE_SUFFIX.lower(),))
    return [p for p in found if p.parent.parent == folder]


def _from_archives(image_archive: str, label_archive: str, split: str) -> Source:
    images = [
        name
        for name in archives.members(image_archive)
        if name.startswith(f"leftImg8bit/{split}/")
        and name.endswith(IMAGE_SUFFIX)
        and not listing.is_hidden(PurePosixPath(name))
    ]
    labels = [_label_name(n.replace("leftImg8bit/", "gtFine/", 1), "labelIds") for n in images]
    missing = sorted(set(labels) - set(archives.members(label_archive)))
    if not images or missing:
        what = f"no {missing[0]} in it" if missing else f"no image of split '{split}'"
        raise UserError(
            f"{label_archive if missing else image_archive}: {what}; download it again."
        )
    files = archives.ZipFiles(image_archive, label_archive, tuple(images), tuple(labels))
    return EncodedSource(INFO, [_id(n) for n in images], files, LABEL_IDS)


def _id(image_name: str) -> str:
    return image_name.rpartition("/")[2].removesuffix(IMAGE_SUFFIX)


def _label_name(image_name: str, kind: str) -> str:
    return image_name.removesuffix(IMAGE_SUFFIX) + f"_gtFine_{kind}.png"
