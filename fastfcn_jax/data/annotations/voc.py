"""Reads Pascal VOC's XML with polygons as written by Roboflow (x1, y1, ...) and LabelMe (pt)."""

from collections import Counter
from xml.etree.ElementTree import Element

from fastfcn_jax.data.annotations import shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Picture, Shape


def matches(root: Element) -> bool:
    return root.tag == "annotation" and root.find("filename") is not None


def parse(root: Element) -> Annotations:
    """Raises KeyError, TypeError or ValueError if the content is not valid."""
    found, left_out = [], Counter()
    for item in root.iterfind("object"):
        if item.findtext("deleted", "0") == "1":
            continue
        points = _points(item.find("polygon"))
        if len(points) < 3:
            left_out["box without an outline"] += 1
        else:
            found.append(Shape((item.findtext("name") or "").strip(), shapes.polygon([points])))
    height, width = (int(root.findtext(f"size/{n}") or 0) for n in ("height", "width"))
    size = (height, width) if height and width else None
    picture = Picture(((root.findtext("filename") or "").strip(),), size, found)
    classes = sorted({shape.name for shape in found})
    return Annotations("Pascal VOC", classes, [picture], {}, dict(left_out))


def _points(polygon: Element | None) -> list[tuple[float, float]]:
    if polygon is None:
        return []
    if polygon.find("pt") is not None:
        return [
            (float(p.findtext("x", "")), float(p.findtext("y", ""))) for p in polygon.iter("pt")
        ]
    texts = {item.tag: item.text or "" for item in polygon}
    points = []
    while f"x{len(points) + 1}" in texts:
        number = len(points) + 1
        points.append((float(texts[f"x{number}"]), float(texts[f"y{number}"])))
    return points
