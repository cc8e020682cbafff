"""Reads CVAT's XML for images (version 1.1): polygons, boxes, ellipses and masks, in z order."""

import re
from collections import Counter
from xml.etree.ElementTree import Element

import numpy as np

from fastfcn_jax.data.annotations import shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Area, Picture, Shape


def matches(root: Element) -> bool:
    return root.tag == "annotations" and root.find("image") is not None


def parse(root: Element) -> Annotations:
    """Raises KeyError, TypeError or ValueError if the content is not valid."""
    colors: dict[str, tuple[int, int, int]] = {}
    listed = []
    for label in root.iterfind(".//labels/label"):
        listed.append(label.findtext("name", ""))
        if code := re.fullmatch("#([0-9a-fA-F]{6})", label.findtext("color", "")):
            value = int(code[1], 16)
            colors[listed[-1]] = value >> 16, value >> 8 & 255, value & 255
    pictures, left_out = [], Counter()
    for image in root.iterfind("image"):
        found = []
        for item in image:
            if "label" not in item.attrib:
                continue
            area = _area(item)
            if area is None:
                left_out[item.tag] += 1
            else:
                order = int(item.get("z_order", "0"))
                found.append(Shape(item.attrib["label"], area, order))
        size = int(image.attrib["height"]), int(image.attrib["width"])
        pictures.append(Picture((image.attrib["name"],), size, found))
    used = sorted({s.name for p in pictures for s in p.shapes} - set(listed))
    return Annotations("CVAT", [*listed, *used], pictures, colors, dict(left_out))


def _area(item: Element) -> Area | None:
    value = item.attrib

    def numbers(*names: str) -> list[float]:
        return [float(value[name]) for name in names]

    if item.tag == "polygon":
        points = [[float(x) for x in point.split(",")] for point in value["points"].split(";")]
        return shapes.polygon([points])
    if item.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        return shapes.rectangle(left, top, right, bottom)
    if item.tag == "ellipse":
        x, y, rx, ry = numbers("cx", "cy", "rx", "ry")
        return shapes.ellipse(x, y, rx, ry, float(value.get("rotation", "0")))
    if item.tag == "mask":
        left, top, width, height = (int(n) for n in numbers("left", "top", "width", "height"))
        runs = [int(n) for n in value["rle"].split(",")]
        filled = np.repeat(np.arange(len(runs)) % 2, runs)
        return shapes.bitmap(filled.reshape(height, width), left, top)
    return None
