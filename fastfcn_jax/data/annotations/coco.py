"""Reads COCO's JSON, which Roboflow, CVAT and others also export: polygons and RLE."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from fastfcn_jax.data.annotations.shapes import Annotations, Picture, Shape
from fastfcn_jax.errors import UserError


def matches(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def parse(content: dict[str, Any]) -> Annotations:
    """Raises KeyError, TypeError or ValueError if the content is not valid COCO."""
    categories = sorted(content["categories"], key=lambda c: c["id"])
    names = {c["id"]: str(c["name"]) for c in categories}
    shapes, left_out = defaultdict(list), Counter()
    sizes = {i["id"]: (int(i["height"]), int(i["width"])) for i in content["images"]}
    for found in content["annotations"]:
        outline = found.get("segmentation")
        if not outline:
            left_out["box without an outline"] += 1
            continue
        area = _area(outline, *sizes[found["image_id"]])
        shapes[found["image_id"]].append(Shape(names[found["category_id"]], area))
    pictures = [
        Picture((str(i["file_name"]),), sizes[i["id"]], shapes[i["id"]]) for i in content["images"]
    ]
    colors = {
        str(c["name"]): tuple(c["color"])
        for c in categories
        if isinstance(c.get("color"), list) and len(c["color"]) == 3
    }
    return Annotations("COCO", list(names.values()), pictures, colors, dict(left_out))


def _area(outline: Any, stored_height: int, stored_width: int):
    mask = _library()

    def area(height: int, width: int) -> np.ndarray:
        if isinstance(outline, list):
            rings = [ring for ring in outline if len(ring) >= 6]
            if not rings:
                return np.zeros((height, width), bool)
            packed = mask.merge(mask.frPyObjects(rings, height, width))
        elif isinstance(outline["counts"], list):
            packed = mask.frPyObjects(outline, stored_height, stored_width)
        else:
            packed = outline
        return mask.decode(packed).astype(bool)

    return area


def _library():
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            'COCO files are read with pycocotools: pip install "fastfcn-jax[labels]".'
        ) from error
    return mask
