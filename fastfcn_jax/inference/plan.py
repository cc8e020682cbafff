"""Groups images of many sizes under few padded sizes, so that few programs are compiled.

A group has one padded size for the output and one for each scale of the protocol. The sizes before
padding are run-time arguments (`Segmentor`'s `size`), so all images of a group share programs and
batches.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from fastfcn_jax.inference.merge import BLOCK_ROWS
from fastfcn_jax.inference.protocols import Protocol
from fastfcn_jax.inference.rescale import Size

GRAIN = 32  # padded sides are multiples of this, the stride of the backbone
LOOSE_GRAIN = 64  # ... and of this in groups for sizes that were not planned
EXACT_SIZES = 2  # the first unplanned sizes get unpadded groups; most data sets have no more sizes
MAX_WASTE = 1.5  # an unplanned image joins a group if that multiplies its pixels by no more
# Rough cost of compiling one program: how many pixels could be predicted in that time.
COMPILE_PIXELS = {"cpu": 1e7, "gpu": 1e9}


@dataclasses.dataclass(frozen=True)
class Group:
    """Padded (height, width) of the output and of each scale.

    exact: all images of the group have exactly these sizes, so nothing is padded.
    """

    output: Size
    scales: tuple[Size, ...]
    exact: bool

    def fits(self, output: Size, scales: tuple[Size, ...]) -> bool:
        mine, other = np.array([self.output, *self.scales]), np.array([output, *scales])
        return bool((mine == other).all() if self.exact else (mine >= other).all())

    @property
    def padded_output(self) -> Size:
        """The output size, with its height rounded up to whole blocks of rows."""
        return -(-self.output[0] // BLOCK_ROWS) * BLOCK_ROWS, self.output[1]

    @property
    def pixels(self) -> int:
        return sum(height * width for height, width in self.scales)


class Plan:
    """Assigns images to groups by their size.

    Args:
      protocol: defines the scales of an image.
      sizes: of the images to come; other sizes may add groups.
      max_programs: upper bound on compiled programs for `sizes`.
    """

    def __init__(self, protocol: Protocol, sizes: Iterable[Size] = (), max_programs: int = 6):
        self.protocol = protocol
        counts = Counter(sizes)
        self._expected = frozenset(counts)
        if len(counts) == 1:
            (size,) = counts
            self.groups = [Group(size, padded_scales(protocol, size), True)]
        else:
            self.groups = _cluster(counts, protocol, max_programs) if counts else []

    def group(self, size: Size) -> Group:
        """The group with the fewest padded pixels; a new one if every group wastes too many."""
        scales = padded_scales(self.protocol, size)
        pixels = sum(height * width for height, width in scales)
        fitting = [group for group in self.groups if group.fits(size, scales)]
        if fitting:
            best = min(fitting, key=lambda group: group.pixels)
            if size in self._expected or best.pixels <= MAX_WASTE * pixels:
                return best
        if len(self.groups) < EXACT_SIZES:
            group = Group(size, scales, True)
        else:
            loose = tuple(_round_up(scale, LOOSE_GRAIN) for scale in scales)
            group = Group(_round_up(size, LOOSE_GRAIN), loose, False)
        if group not in self.groups:
            self.groups.append(group)
        return group

    def batches(
        self, images: Iterable[tuple[Any, np.ndarray]], count: int
    ) -> Iterator[tuple[Group, list[tuple[Any, np.ndarray]]]]:
        """Yields `count` (key, image) of one group once they are there; the rest at the end."""
        waiting: dict[Group, list] = {}
        for key, image in images:
            group = self.group(image.shape[:2])
            waiting.setdefault(group, []).append((key, image))
            if len(waiting[group]) == count:
                yield group, waiting.pop(group)
        yield from waiting.items()

    @property
    def programs(self) -> int:
        """Number of programs to compile: one for each group if the protocol has one pass per image;
        otherwise one for each input size, and one for each group to merge the results.
        """
        if all(len(group.scales) == 1 for group in self.groups) and not self.protocol.windows:
            return len(self.groups) * len(self.protocol.flips)
        seen = {scale for group in self.groups for scale in group.scales}
        return len(seen) + len(self.groups)


def padded_scales(protocol: Protocol, size: Size) -> tuple[Size, ...]:
    """Sizes of the network's inputs for one image, without a group's padding."""
    if protocol.windows is not None:
        return (protocol.windows.size,)
    return tuple(protocol.scales(size))


def _round_up(size: Size, grain: int) -> Size:
    return -(-size[0] // grain) * grain, -(-size[1] // grain) * grain


def _cluster(counts: Counter, protocol: Protocol, max_programs: int) -> list[Group]:
    """The cheapest of the groupings that arise when sizes are merged pair by pair."""
    weights: Counter = Counter()
    for size, count in counts.items():
        padded = [_round_up(side, GRAIN) for side in (size, *padded_scales(protocol, size))]
        weights[tuple(padded)] += count
    boxes = np.array(list(weights), np.int64)  # groups, (output, scales...), (height, width)
    weight = np.array(list(weights.values()), np.float64)
    compile_pixels = COMPILE_PIXELS.get(jax.default_backend(), 1e9)
    best, best_cost = boxes[:0], np.inf
    for few, few_weight in _merge_down(boxes, weight, max_programs):
        grouping = _share_scales(few, few_weight, max_programs)
        if grouping is None:
            continue
        programs = len({tuple(s) for box in grouping for s in box[1:]}) + len(grouping)
        cost = _pixels(grouping) @ few_weight + programs * compile_pixels
        if cost < best_cost:
            best, best_cost = grouping, cost
    sizes = [[(int(height), int(width)) for height, width in box] for box in best]
    return [Group(output, tuple(scales), False) for output, *scales in sizes]


def _merge_down(boxes: np.ndarray, weight: np.ndarray, at_most: int):
    """Yields (boxes, weights) for every number of groups from `at_most` down to one.

    Always merges the two groups whose union adds the fewest padded pixels.
    """
    boxes, weight = boxes.copy(), weight.copy()
    alive = np.ones(len(boxes), bool)
    extra = np.stack([_extra(boxes, weight, i) for i in range(len(boxes))])
    while True:
        if alive.sum() <= at_most:
            yield boxes[alive], weight[alive]
        if alive.sum() == 1:
            return
        first, second = map(int, np.unravel_index(np.argmin(extra), extra.shape))
        boxes[first] = np.maximum(boxes[first], boxes[second])
        weight[first] += weight[second]
        alive[second] = False
        row = np.where(alive, _extra(boxes, weight, first), np.inf)
        extra[first], extra[:, first] = row, row
        extra[second], extra[:, second] = np.inf, np.inf


def _extra(boxes: np.ndarray, weight: np.ndarray, i: int) -> np.ndarray:
    """Padded pixels added by merging group i with each of the others."""
    union = _pixels(np.maximum(boxes, boxes[i])) * (weight + weight[i])
    extra = union - _pixels(boxes) * weight - _pixels(boxes[i]) * weight[i]
    extra[i] = np.inf
    return extra


def _share_scales(boxes: np.ndarray, weight: np.ndarray, max_programs: int) -> np.ndarray | None:
    """Lets scales share padded sizes until there are few enough programs; None if impossible."""
    groups, rows = boxes.shape[:2]
    if rows == 2:
        return boxes  # with one scale, network and merge are one program
    if groups >= max_programs:
        return None
    flat = boxes[:, 1:].reshape(-1, 1, 2)
    flat = np.concatenate([np.zeros_like(flat), flat], axis=1)  # an empty output row
    use = np.repeat(weight, rows - 1)
    for few, _ in _merge_down(flat, use, len(flat)):
        if len(np.unique(few[:, 1], axis=0)) <= max_programs - groups:
            break
    shared = boxes.copy()
    for group, scale in np.ndindex(groups, rows - 1):
        box = shared[group, scale + 1]
        fitting = few[(few[:, 1] >= box).all(axis=1), 1]
        shared[group, scale + 1] = fitting[np.argmin(fitting.prod(axis=1))]
    return shared


def _pixels(boxes: np.ndarray) -> np.ndarray | np.float64:
    """Padded pixels that go through the network: all sizes except the output's."""
    return boxes[..., 1:, :].prod(axis=-1).sum(axis=-1).astype(np.float64)
