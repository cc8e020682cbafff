"""Named areas of pixels, drawn into an index label, later ones over earlier ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

Area = Callable[[int, int], Bool[np.ndarray, "h w"]]
Ring = Sequence[Sequence[float]]
BACKGROUND = "background"


class Shape(NamedTuple):
    """A named area; `area(height, width)` returns its pixels. Higher `order` is on top."""

    name: str
    area: Area
    order: int = 0


class Picture(NamedTuple):
    """The shapes of one photograph.

    names: possible names of the photograph, the most likely first; size: (height, width) according
    to the file, or None.
    """

    names: tuple[str, ...]
    size: tuple[int, int] | None
    shapes: list[Shape]


class Annotations(NamedTuple):
    """The contents of a file.

    colors: class name -> RGB if the file gives one; left_out: kind of item without area -> count.
    """

    program: str
    classes: list[str]
    pictures: list[Picture]
    colors: dict[str, tuple[int, int, int]]
    left_out: dict[str, int]


def draw(
    picture: Picture, size: tuple[int, int], values: Mapping[str, int], background: int
) -> UInt8[np.ndarray, "h w"]:
    """Draws the label of a photograph of `size` (height, width)."""
    label = np.full(size, background, np.uint8)
    for shape in sorted(picture.shapes, key=lambda s: s.order):
        label[shape.area(*size)] = values[shape.name]
    return label


def polygon(rings: Sequence[Ring]) -> Area:
    """Pixels whose centres are inside an odd number of rings of (x, y); the corner is (0, 0)."""

    def area(height: int, width: int) -> np.ndarray:
        crossings = np.zeros((height, width + 1), np.int32)
        for ring in rings:
            points = np.asarray(ring, np.float64).reshape(-1, 2) - 0.5
            if len(points) > 2:
                _cross(crossings, points, np.roll(points, -1, 0))
        return (np.cumsum(crossings, 1)[:, :-1] & 1).astype(bool)

    return area


def _cross(crossings: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Counts, in each row, the first pixel to the right of every edge that crosses the row."""
    height, last = crossings.shape[0], crossings.shape[1] - 1
    up = np.where((start[:, 1] <= end[:, 1])[:, None], start, end)
    down = np.where((start[:, 1] <= end[:, 1])[:, None], end, start)
    first = np.ceil(up[:, 1]).clip(0, height).astype(int)
    count = (np.ceil(down[:, 1]).clip(0, height).astype(int) - first).clip(0)
    edge = np.repeat(np.arange(len(start)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (down - up)[edge]
    x = up[edge, 0] + (row - up[edge, 1]) * slope[:, 0] / np.where(slope[:, 1], slope[:, 1], 1)
    np.add.at(crossings, (row, np.ceil(x).clip(0, last).astype(int)), 1)


def rectangle(left: float, top: float, right: float, bottom: float) -> Area:
    return polygon([[(left, top), (right, top), (right, bottom), (left, bottom)]])


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Area:
    turn = math.radians(degrees)
    t = np.linspace(0, 2 * math.pi, 128, endpoint=False)
    along, across = rx * np.cos(t), ry * np.sin(t)
    ring = np.stack(
        [
            x + along * math.cos(turn) - across * math.sin(turn),
            y + along * math.sin(turn) + across * math.cos(turn),
        ],
        -1,
    )
    return polygon([ring.tolist()])


def bitmap(pixels: np.ndarray, left: int = 0, top: int = 0) -> Area:
    """The nonzero pixels of a bitmap whose top left corner is at column `left`, row `top`."""

    def area(height: int, width: int) -> np.ndarray:
        result = np.zeros((height, width), bool)
        y, x = max(top, 0), max(left, 0)
        part = pixels[y - top :, x - left :][: max(height - y, 0), : max(width - x, 0)] != 0
        result[y : y + part.shape[0], x : x + part.shape[1]] = part
        return result

    return area
