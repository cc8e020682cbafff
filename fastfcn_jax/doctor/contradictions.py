"""Finds labels that a model contradicts with confidence, by image and by connected region."""

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from fastfcn_jax.data.source import Source
from fastfcn_jax.terminal.progress import track

CALIBRATION_IMAGES = 200  # evenly spaced over all splits; they give the confidence of each class
OPENING = np.ones((3, 3), np.uint8)  # removes lines thinner than this: borders are never exact
DEFINITION = (
    "A pixel contradicts its label if the model predicts another class with at least the mean "
    "probability that the class has where it is labelled. score: sum over these pixels of "
    "-ln p(labelled class), divided by the labelled pixels of the image. mean: the same sum "
    "divided by the pixels that contradict."
)
Probabilities = Callable[[Num[np.ndarray, "h w c"]], Float[np.ndarray, "h w k"]]


class Region(NamedTuple):
    """Connected pixels labelled as one class and predicted as another.

    box: (x, y, width, height).
    score: its part of the image's score; mean: mean of -ln p(labelled class) over its pixels.
    """

    split: str
    index: int
    labelled: int
    predicted: int
    box: tuple[int, int, int, int]
    pixels: int
    mean: float
    score: float


class Photo(NamedTuple):
    """An image; its score is the sum of those of its regions."""

    split: str
    index: int
    pixels: int
    mean: float
    score: float


class Ranking(NamedTuple):
    """The most suspicious images and regions, the first first."""

    photos: list[Photo]
    regions: list[Region]
    examined: int


def rank(probabilities: Probabilities, sources: Mapping[str, Source], count: int) -> Ranking:
    """Looks at every labelled image of `sources` (split -> source)."""
    places = [(split, i) for split, source in sources.items() for i in range(len(source))]
    least = confidences(probabilities, sources, places)
    photos: list[Photo] = []
    regions: list[Region] = []
    for split, index in track(iter(places), len(places), "looking at labels"):
        sample = sources[split][index]
        found = list(_regions(probabilities(sample.image), sample.label, least, split, index))
        if not found:
            continue
        pixels = sum(r.pixels for r in found)
        mean = sum(r.pixels * r.mean for r in found) / pixels
        photos.append(Photo(split, index, pixels, mean, sum(r.score for r in found)))
        regions = heapq.nlargest(count, [*regions, *found], key=lambda region: region.score)
    photos = heapq.nlargest(count, photos, key=lambda photo: photo.score)
    return Ranking(photos, regions, len(places))


def confidences(
    probabilities: Probabilities, sources: Mapping[str, Source], places: list[tuple[str, int]]
) -> Float[np.ndarray, " k"]:
    """Mean probability of each class where it is labelled: confident learning's thresholds.

    Northcutt, Jiang and Chuang 2021, arXiv 1911.00068. A class that is nowhere labelled gets 1/2.
    """
    chosen = np.unique(np.linspace(0, len(places) - 1, CALIBRATION_IMAGES).astype(int))
    sums = counts = np.zeros(1)
    for i in track(iter(chosen), len(chosen), "measuring confidence"):
        split, index = places[i]
        sample = sources[split][index]
        p = probabilities(sample.image)
        k = p.shape[-1]
        valid = sample.label < k
        own = np.take_along_axis(p, np.where(valid, sample.label, 0)[..., None], -1)[..., 0]
        sums = sums + np.bincount(sample.label[valid], own[valid].astype(np.float64), minlength=k)
        counts = counts + np.bincount(sample.label[valid], minlength=k)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 0.5)


def _regions(
    p: Float[np.ndarray, "h w k"],
    label: UInt8[np.ndarray, "h w"],
    least: Float[np.ndarray, " k"],
    split: str,
    index: int,
) -> Iterator[Region]:
    predicted = p.argmax(-1).astype(np.uint8)
    valid = label < p.shape[-1]
    sure = p.max(-1) >= least[predicted]
    own = np.take_along_axis(p, np.where(valid, label, 0)[..., None], -1)[..., 0]
    surprise = -np.log(own)
    contradicts = valid & sure & (predicted != label)
    pairs = np.unique(label[contradicts].astype(int) * 256 + predicted[contradicts])
    for labelled, seen in (divmod(int(pair), 256) for pair in pairs):
        for box, pixels, total in _connected(
            contradicts & (label == labelled) & (predicted == seen), surprise
        ):
            score = total / valid.sum()
            yield Region(split, index, labelled, seen, box, pixels, total / pixels, float(score))


def _connected(
    here: Bool[np.ndarray, "h w"], surprise: Float[np.ndarray, "h w"]
) -> Iterator[tuple[tuple[int, int, int, int], int, float]]:
    """(box, pixels, sum of `surprise`) of each connected region."""
    opened = cv2.morphologyEx(here.astype(np.uint8), cv2.MORPH_OPEN, OPENING)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    sums = np.bincount(numbers.ravel(), surprise.ravel().astype(np.float64), minlength=count)
    for number in range(1, count):
        x, y, width, height, pixels = map(int, stats[number])
        yield (x, y, width, height), pixels, float(sums[number])
