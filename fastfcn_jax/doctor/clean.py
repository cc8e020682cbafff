"""Detects and repairs label values that are not classes: smooth edges, antialiasing, noise."""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import cv2
import numpy as np

from fastfcn_jax.doctor.stored_labels import Value, code_of, codes

MIN_SOLID = 0.02  # share of a class's pixels with four equal neighbours; smooth edges have none
MAX_STRAY = 1e-4  # share of all pixels up to which a value without area is noise
MAX_SHADE = 24  # brightness levels by which JPEG may change a colour over an area


class Cleanliness(NamedTuple):
    """Which values are classes, noise (with their pixel counts), or results of smoothing."""

    classes: list[Value]
    stray: dict[Value, int]
    smooth: list[Value]


def assess(
    counts: Counter, solid: Counter, files: Counter, named: Collection[Value], rest: int
) -> Cleanliness:
    """Divides the values of all labels into classes, noise and results of smoothing.

    Args:
      counts: pixels of each value; solid: pixels with four equal neighbours; files: number of
        labels with the value.
      named: values in a list of classes; these are classes, however few their pixels.
      rest: pixels whose values were not counted separately, as there were too many values.
    """
    anchors = [v for v in counts if v in named or solid[v] >= max(1, MIN_SOLID * counts[v])]
    others = [v for v in counts if v not in anchors]
    if not others and not rest:
        return Cleanliness(sorted(counts, key=code_of), {}, [])
    if _is_smooth(anchors, others, rest):
        kept = {*_with_extremes(_without_shades(anchors, counts, named), counts)}
        smooth = [v for v in counts if v not in kept]
        return Cleanliness(sorted(kept, key=code_of), {}, sorted(smooth, key=code_of))
    total = counts.total()
    stray = {
        v: counts[v]
        for v in others
        if len(anchors) > 1 and not solid[v] and counts[v] <= MAX_STRAY * total and files[v] == 1
    }
    return Cleanliness(sorted((v for v in counts if v not in stray), key=code_of), stray, [])


def repair(pixels: np.ndarray, classes: Collection[Value], *, are_ordered: bool) -> np.ndarray:
    """Assigns every pixel of no class to a class: that of the closest colour or nearest pixel.

    Args:
      pixels: values, uint8 (h, w) or (h, w, 3).
      are_ordered: whether values can be compared by size, as in grey masks; the numbers of a
        palette cannot.
    """
    known = np.array(sorted(map(code_of, classes)), np.uint32)
    code = codes(pixels).astype(np.uint32)
    wrong = ~np.isin(code, known)
    if not wrong.any():
        return pixels
    repaired = code.copy()
    by_value, is_near = _likest(code[wrong], known, pixels.ndim == 3)
    around = _around(code, wrong)
    takes_value = is_near | (len(known) == 2) if are_ordered or pixels.ndim == 3 else False
    repaired[wrong] = by_value if around is None else np.where(takes_value, by_value, around)
    if pixels.ndim == 2:
        return repaired.astype(np.uint8)
    return np.stack((repaired >> 16, repaired >> 8 & 255, repaired & 255), -1).astype(np.uint8)


def _is_smooth(anchors: list[Value], others: list[Value], rest: int) -> bool:
    """Whether there are many values without area, between those that have some."""
    if rest or len(others) >= 30:
        return bool(anchors)
    if len(others) < 3 or len(others) <= len(anchors) or len(anchors) < 2:
        return False
    if isinstance(others[0], tuple):
        return True
    between, known = [code_of(v) for v in others], [code_of(v) for v in anchors]
    return min(known) < min(between) and max(between) < max(known)


def _without_shades(anchors: list[Value], counts: Counter, named: Collection[Value]) -> list[Value]:
    """Removes shades that lossy compression made of a more frequent colour."""
    channels = np.array([v if isinstance(v, tuple) else (v,) for v in anchors], np.int32)
    if channels.shape[1] == 1 and np.ptp(channels) < 128:  # class numbers, not shades
        return anchors
    near = MAX_SHADE if channels.shape[1] == 3 else MAX_SHADE // 3
    kept = []
    for value, own in zip(anchors, channels, strict=True):
        distances = np.abs(channels - own).max(1)
        close = (v for v, d in zip(anchors, distances, strict=True) if d <= near)
        if value in named or all(counts[v] < 10 * counts[value] for v in close):
            kept.append(value)
    return kept


def _with_extremes(anchors: list[Value], counts: Counter) -> list[Value]:
    """Adds the darkest and brightest value of a smooth mask whose thin lines have no area."""
    if len(anchors) > 1 or isinstance(anchors[0], tuple):
        return anchors
    return [*{*anchors, min(counts, key=code_of), max(counts, key=code_of)}]


def _likest(found: np.ndarray, known: np.ndarray, is_color: bool) -> tuple[np.ndarray, np.ndarray]:
    """The known value closest to each, and whether it is much closer than any two known values."""
    unique, inverse = np.unique(found, return_inverse=True)

    def channels(code):
        parts = (code >> 16, code >> 8 & 255, code & 255) if is_color else (code,)
        return np.stack(parts, -1).astype(np.int32)

    ours, theirs = channels(unique), channels(known)
    distance = np.stack([np.abs(ours - t).max(-1) for t in theirs])
    apart = min(
        (np.abs(a - b).max() for i, a in enumerate(theirs) for b in theirs[:i]), default=256
    )
    return known[distance.argmin(0)][inverse], (distance.min(0) <= apart / 4)[inverse]


def _around(code: np.ndarray, wrong: np.ndarray) -> np.ndarray | None:
    """For each pixel of no class, the value of the nearest pixel that has one."""
    if wrong.all():
        return None
    distances_and_nearest = cv2.distanceTransformWithLabels(
        wrong.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.asarray(distances_and_nearest[1], np.int64)
    value_of = np.zeros(nearest.max() + 1, np.uint32)
    value_of[nearest[~wrong]] = code[~wrong]
    return value_of[nearest[wrong]]
