"""Writes the regions of many label maps as one COCO file, picture by picture."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from fastfcn_jax import polygons, text
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.files import replacing


def write(path: Path, pictures: Iterable[tuple[str, np.ndarray]], info: DatasetInfo) -> int:
    """Writes annotations with a run-length mask each, which has holes as they are.

    COCO's polygons cannot have holes. Ids begin at 1, as COCO's programs expect: that of a category
    is the class number + 1.

    Args:
      pictures: (file name, class indices) of each; one at a time is in memory.

    Returns:
      The number of pictures.
    """
    categories = [
        {"id": k + 1, "name": name, "color": info.palette[k].tolist()}
        for k, name in enumerate(info.class_names)
    ]
    images: list[str] = []  # listed after the annotations: the pictures' sizes come with them
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {json.dumps({"description": info.name})},\n')
        file.write(f'"categories": {json.dumps(categories)},\n"annotations": [')
        annotated = 0
        for number, (name, labels) in enumerate(pictures, start=1):
            height, width = labels.shape
            image = {"id": number, "file_name": text.shown(name), "width": width, "height": height}
            images.append(json.dumps(image))
            annotated = _annotate(file, labels, info.num_classes, number, annotated)
        listed = ",\n".join(images)
        file.write(f'],\n"images": [{listed}]}}\n')
    return len(images)


def _annotate(file: IO[str], labels, num_classes: int, image: int, annotated: int) -> int:
    """Writes the annotations of a picture; returns the last annotation's id."""
    size = labels.shape
    for region in polygons.regions(labels, num_classes):
        annotated += 1
        annotation = {
            "id": annotated,
            "image_id": image,
            "category_id": region.label + 1,
            "segmentation": {"size": list(size), "counts": polygons.run_lengths(region, size)},
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
        }
        file.write(",\n" * (annotated > 1) + json.dumps(annotation))
    return annotated
