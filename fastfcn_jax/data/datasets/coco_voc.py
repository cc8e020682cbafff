"""COCO 2017 with the 21 classes of Pascal VOC, from its instances, to pretrain on."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from fastfcn_jax.data.datasets import layout, pascal_detail
from fastfcn_jax.data.datasets.pascal_voc import NAMES, PALETTE
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source
from fastfcn_jax.errors import UserError

INFO = DatasetInfo("coco", NAMES, PALETTE, tuple(range(21)))
LABELS = LabelTable(range(21), [], "COCO in Pascal VOC's classes (0 = background, 1..20)")
# COCO's categories in the order of VOC's classes (wuhuikai/FastFCN, encoding/datasets/coco.py).
CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
MIN_PIXELS = 1000  # an image needs more pixels of the 20 classes than this, as in the official code
SPLITS = {"train": "train2017", "val": "val2017"}
SPLIT_SIZES: dict[str, int] = {}  # no publication says how many images pass the filter


def load(root: str, split: str) -> Source:
    """Reads train2017/ or val2017/ with annotations/instances_*.json.

    Where instances overlap, the first in the file is on top. Drawing all outlines to choose the
    images takes a minute or two for train2017; `fastfcn prepare` does it once.

    Raises:
      UserError: a folder or file is missing or not COCO's, or pycocotools is not installed.
    """
    name = SPLITS.get(split, split)
    holds = "the COCO folder that holds train2017/, val2017/ and annotations/"
    images_folder = layout.folder(root, name, holds=holds)
    annotations = Path(root, "annotations", f"instances_{name}.json")
    try:
        content = json.loads(annotations.read_bytes())
        chosen = _chosen(content)
        files = pascal_detail.DetailFiles(
            tuple(str(images_folder / image["file_name"]) for image, _ in chosen),
            tuple((image["height"], image["width"]) for image, _ in chosen),
            tuple(segments for _, segments in chosen),
            str(annotations),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(
            f"{annotations}: not COCO's instances of 2017 ({error!r}); download it again."
        ) from error
    if not chosen:
        raise UserError(f"{annotations}: no image with {MIN_PIXELS} pixels of the 20 classes.")
    count = len(content["images"])
    print(
        f"COCO {split}: {len(chosen)} of {count} images have over {MIN_PIXELS} pixels of VOC's "
        "classes, the others are left out",
        file=sys.stderr,
    )
    return EncodedSource(INFO, [Path(p).stem for p in files.images], files, LABELS)


def _chosen(content: dict[str, Any]) -> list[tuple[dict, tuple[tuple[int, str], ...]]]:
    """The images that pass the filter, each with its segments from the lowest to the top one."""
    mask = _library()
    class_of = {category: label for label, category in enumerate(CATEGORIES)}
    outlines = defaultdict(list)
    for found in content["annotations"]:
        if found["category_id"] in class_of:
            outlines[found["image_id"]].append(found)
    chosen = []
    for image in content["images"]:
        size = image["height"], image["width"]
        drawn = [
            (class_of[found["category_id"]], _packed(mask, found["segmentation"], *size))
            for found in outlines[image["id"]]
            if found["segmentation"]
        ]
        if drawn and mask.area(mask.merge([runs for _, runs in drawn])) > MIN_PIXELS:
            segments = [(label, runs["counts"].decode()) for label, runs in drawn]
            chosen.append((image, tuple(reversed(segments))))
    return chosen


def _packed(mask: Any, outline: Any, height: int, width: int) -> dict[str, Any]:
    """The pixels of one instance, polygons or run lengths, as compressed run lengths."""
    found = mask.frPyObjects(outline, height, width)
    return mask.merge(found) if isinstance(found, list) else found


def _library() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            'COCO\'s instances are read with pycocotools: pip install "fastfcn-jax[labels]".'
        ) from error
    return mask
