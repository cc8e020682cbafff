"""Reads Label Studio's JSON and JSON-MIN: polygons, rectangles, ellipses and brushes."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from fastfcn_jax.data.annotations import shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Area, Picture, Shape

_KINDS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")


def matches(content: Any) -> bool:
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    first = content[0]
    return isinstance(first.get("data"), dict) or isinstance(first.get("image"), str)


def parse(content: list[dict[str, Any]]) -> Annotations:
    """Raises KeyError, TypeError or ValueError if the content is not valid."""
    pictures, left_out = [], Counter()
    for task in content:
        found, size = [], None
        for item in _results(task, left_out):
            kind = next((k for k in _KINDS if item["value"].get(k)), None)
            if kind is None:
                left_out[item.get("type", "result")] += 1
                continue
            size = int(item["original_height"]), int(item["original_width"])
            found.append(Shape(str(item["value"][kind][0]), _area(kind, item["value"], *size)))
        pictures.append(Picture(_names(task), size, found))
    classes = sorted({s.name for p in pictures for s in p.shapes})
    return Annotations("Label Studio", classes, pictures, {}, dict(left_out))


def _results(task: dict[str, Any], left_out: Counter) -> Iterator[dict[str, Any]]:
    """The regions of a task's latest annotation; JSON-MIN has them under the control's name."""
    if "annotations" in task:
        done = [a for a in task["annotations"] if not a.get("was_cancelled")]
        if len(done) > 1:
            left_out["earlier annotation of the same photo"] += len(done) - 1
        if done:
            yield from max(done, key=lambda a: str(a.get("updated_at", "")))["result"]
        return
    for given in task.values():
        for value in given if isinstance(given, list) else ():
            if isinstance(value, dict) and "original_width" in value:
                yield {"value": value, **value}


def _names(task: dict[str, Any]) -> tuple[str, ...]:
    """The photograph's name, with and without the eight digits that uploading prepends."""
    data = task.get("data", task)
    path = next((v for k, v in data.items() if k == "image"), None)
    path = path or next(v for v in data.values() if isinstance(v, str))
    name = unquote(path.partition("?d=")[2] or path.partition("?")[0])
    short = re.sub(r"^[0-9a-f]{8}-", "", PurePosixPath(name).name)
    return name, short


def _area(kind: str, value: dict[str, Any], height: int, width: int) -> Area:
    if kind == "brushlabels":
        return shapes.bitmap(_brush(value["rle"]).reshape(height, width, 4)[..., 3])
    across, down = width / 100, height / 100
    if kind == "polygonlabels":
        return shapes.polygon([[(x * across, y * down) for x, y in value["points"]]])
    x, y = value["x"] * across, value["y"] * down
    if kind == "ellipselabels":
        rx, ry = value["radiusX"] * across, value["radiusY"] * down
        return shapes.ellipse(x, y, rx, ry, value.get("rotation", 0))
    wide, high = value["width"] * across, value["height"] * down
    turn = np.radians(value.get("rotation", 0))  # around the upper left corner
    ring = np.array([(0, 0), (wide, 0), (wide, high), (0, high)])
    turned = ring @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return shapes.polygon([(turned + np.array((x, y))).tolist()])


def _brush(packed: list[int]) -> np.ndarray:
    """Red, green, blue and alpha of every pixel, from Label Studio's run lengths.

    The header has the count of numbers (32 bits), the bits per number minus 1 (5 bits) and the bits
    of four kinds of lengths minus 1 (4 bits each). A block has one bit (run or not), the kind of
    its length (2 bits), its length minus 1, then one number for a run, or else all numbers.
    """
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, size = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    numbers = np.zeros(total, np.uint8)
    at = 0
    while at < total:
        is_run = take(1)
        end = at + 1 + take(lengths[take(2)])
        if is_run:
            numbers[at:end] = take(size)
        else:
            numbers[at:end] = [take(size) for _ in range(end - at)]
        at = end
    return numbers
