"""Reads Supervisely's JSON, one file per photograph: polygons, rectangles and bitmaps."""

import base64
import io
import zlib
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from fastfcn_jax.data.annotations import shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Area, Picture, Shape


def matches(content: Any) -> bool:
    return isinstance(content, dict) and {"size", "objects"} <= content.keys()


def parse(content: dict[str, Any]) -> Annotations:
    """Raises KeyError, TypeError or ValueError if the content is not valid."""
    found, left_out = [], Counter()
    for item in content["objects"]:
        area = _area(item)
        if area is None:
            left_out[item.get("geometryType", "object")] += 1
        else:
            found.append(Shape(str(item["classTitle"]), area))
    size = int(content["size"]["height"]), int(content["size"]["width"])
    classes = sorted({shape.name for shape in found})
    # `read.read` adds the photograph's name: that of the file without .json.
    return Annotations("Supervisely", classes, [Picture((), size, found)], {}, dict(left_out))


def _area(item: dict[str, Any]) -> Area | None:
    kind = item["geometryType"]
    if kind == "polygon":
        return shapes.polygon([item["points"]["exterior"], *item["points"].get("interior", [])])
    if kind == "rectangle":
        (x1, y1), (x2, y2) = item["points"]["exterior"]
        return shapes.rectangle(x1, y1, x2, y2)
    if kind == "bitmap":
        data = zlib.decompress(base64.b64decode(item["bitmap"]["data"]))
        with Image.open(io.BytesIO(data)) as picture:
            pixels = np.array(picture.convert("RGBA"))[..., 3]
        left, top = item["bitmap"]["origin"]
        return shapes.bitmap(pixels, left, top)
    return None
