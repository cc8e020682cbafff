"""Reads labelme's JSON, one file per photograph."""

import base64
import io
import math
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from fastfcn_jax.data.annotations import shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Area, Picture, Shape


def matches(content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def parse(content: dict[str, Any]) -> Annotations:
    """Raises KeyError, TypeError or ValueError if the content is not valid."""
    found, left_out = [], Counter()
    for shape in content["shapes"]:
        area = _area(shape)
        if area is None:
            left_out[shape.get("shape_type", "shape")] += 1
        else:
            found.append(Shape(str(shape["label"]), area))
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if height and width else None
    picture = Picture((str(content["imagePath"]),), size, found)
    classes = sorted({shape.name for shape in found})
    return Annotations("labelme", classes, [picture], {}, dict(left_out))


def _area(shape: dict[str, Any]) -> Area | None:
    points, kind = shape["points"], shape.get("shape_type") or "polygon"
    if kind == "polygon":
        return shapes.polygon([points])
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points
        return shapes.rectangle(x1, y1, x2, y2)
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return shapes.ellipse(x, y, radius, radius)
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
            pixels = np.array(picture)
        return shapes.bitmap(pixels, round(points[0][0]), round(points[0][1]))
    return None
