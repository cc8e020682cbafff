"""The connected regions of a label map, and their outlines along the edges of the pixels."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8


class Region(NamedTuple):
    """Pixels of one class that are connected by their sides.

    box: (x, y, width, height) of the smallest box around it.
    mask: which pixels of the box belong to it.
    """

    label: int
    area: int
    box: tuple[int, int, int, int]
    mask: Bool[np.ndarray, "h w"]


def regions(labels: UInt8[np.ndarray, "h w"], num_classes: int) -> Iterator[Region]:
    """All regions, class by class; pixels of other values belong to none."""
    for label in range(num_classes):
        is_class = (labels == label).view(np.uint8)
        if not is_class.any():
            continue
        count, numbers, stats, _ = cv2.connectedComponentsWithStats(is_class, connectivity=4)
        for number in range(1, count):
            x, y, width, height, area = map(int, stats[number])
            mask = numbers[y : y + height, x : x + width] == number
            yield Region(label, area, (x, y, width, height), mask)


def rings(region: Region) -> list[Int[np.ndarray, "_ 2"]]:
    """The outer boundary, then the holes: corners (x, y) of pixels, in the picture's coordinates.

    OpenCV's contours run through the middle of pixels. With every pixel doubled, the middles of the
    border's pixels are a quarter of an old pixel inside its edges, and round to the corners.
    """
    doubled = region.mask.repeat(2, axis=0).repeat(2, axis=1).view(np.uint8)
    found, levels = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    is_outer = levels[0, :, 3] < 0  # it has no parent
    ordered = sorted(range(len(found)), key=lambda i: not is_outer[i])
    corner = np.array(region.box[:2])
    return [_corners((found[i][:, 0] + 1) // 2) + corner for i in ordered]


def _corners(points: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, "m 2"]:
    """The points where a closed line turns."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def run_lengths(region: Region, size: tuple[int, int]) -> list[int]:
    """COCO's uncompressed RLE in a picture of (height, width): lengths of zeros, ones, zeros, …

    The pixels are counted column by column.
    """
    (x, y, _, _), (height, width) = region.box, size
    framed = np.pad(region.mask.T.astype(np.int8), ((0, 0), (1, 1)))  # columns, rows
    steps = np.diff(framed, axis=1)
    column, row = np.nonzero(steps)  # starts and ends of runs take turns
    places = (column + x) * height + row + y
    # A run that ends at the bottom and one that begins at the next column's top are one.
    joined = np.flatnonzero(np.diff(places) == 0)
    places = np.delete(places, np.concatenate([joined, joined + 1]))
    edges = [0, *places.tolist(), height * width]
    if len(edges) > 2 and edges[-2] == edges[-1]:  # the last pixel belongs to the region
        edges.pop()
    return np.diff(edges).tolist()
