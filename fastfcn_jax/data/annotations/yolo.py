"""Reads the YOLO segmentation layout of Roboflow and Ultralytics: data.yaml and .txt files."""

from pathlib import Path
from typing import Any

from fastfcn_jax import text
from fastfcn_jax.data import listing
from fastfcn_jax.data.annotations import shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Picture, Shape


def matches(content: Any) -> bool:
    return isinstance(content, dict) and "names" in content and "train" in content


def parse(content: dict[str, Any], folder: Path) -> Annotations:
    """Reads the outlines of all `labels/**/x.txt` below the folder of data.yaml.

    Raises KeyError, TypeError or ValueError if the content is not valid.
    """
    given = content["names"]
    names = {
        int(k): str(v) for k, v in (given.items() if isinstance(given, dict) else enumerate(given))
    }
    pictures, left_out = [], 0
    for path in listing.below(folder).files:
        inside = path.relative_to(folder)
        if path.suffix != ".txt" or "labels" not in inside.parts:
            continue
        found = []
        for line in filter(str.strip, text.lines(text.read(path))):
            number, *values = line.split()
            if len(values) < 6:
                left_out += 1
                continue
            ring = [*zip(map(float, values[::2]), map(float, values[1::2]), strict=True)]
            found.append(Shape(names[int(number)], _scaled(ring)))
        pictures.append(Picture((inside.with_suffix("").as_posix(),), None, found))
    boxes = {"box without an outline": left_out} if left_out else {}
    return Annotations("YOLO", [names[k] for k in sorted(names)], pictures, {}, boxes)


def _scaled(ring: list[tuple[float, float]]):
    """Points are fractions of the photograph's width and height."""
    return lambda height, width: shapes.polygon([[(x * width, y * height) for x, y in ring]])(
        height, width
    )
