"""Steps that move or remove pixels: rotation, flips, scales by steps, cut-out, random erasing.

Those of mmsegmentation 1.2.2 (`RandomRotate`, `RandomFlip`, `RandomRotFlip`, `RandomChoiceResize`,
`RandomCutOut`) draw its random numbers in its order, and return what it returns.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.data.augment.mmseg import Draws, Image, Label
from fastfcn_jax.data.resize import by_fours

Pair = tuple[Num[np.ndarray, "h2 w2 c"], UInt8[np.ndarray, "h2 w2"]]
_FLIP_CODES = {"horizontal": 1, "vertical": 0, "diagonal": -1}  # of cv2.flip


def flip(
    image: Image, label: Label, rng: Draws, *, prob: float, directions: Sequence[str]
) -> tuple[Image, Label]:
    """Flips with probability `prob`, in one of the directions (mmseg's `RandomFlip`)."""
    shares = np.cumsum([*[prob / len(directions)] * len(directions), 1.0 - prob])
    chosen = int(np.searchsorted(shares / shares[-1], rng.random(), side="right"))
    if chosen == len(directions):
        return image, label
    code = _FLIP_CODES[directions[chosen]]
    return by_fours(lambda x: cv2.flip(x, code), image), cv2.flip(label, code)


def rotate(
    image: Image, label: Label, rng: Draws, *, prob: float, degrees: float, fill: int
) -> tuple[Image, Label]:
    """Rotates about the centre by up to `degrees` each way (mmseg's `RandomRotate`).

    What comes from outside is black in the image and `fill` in the label.
    """
    happens = rng.random() < prob
    angle = rng.uniform(-degrees, degrees)  # drawn in any case, as in mmseg
    if not happens:
        return image, label
    height, width = label.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) * 0.5, (height - 1) * 0.5), -angle, 1.0)
    size = (width, height)
    turned = by_fours(lambda x: cv2.warpAffine(x, matrix, size, flags=cv2.INTER_LINEAR), image)
    return turned, cv2.warpAffine(
        label, matrix, size, flags=cv2.INTER_NEAREST, borderValue=(fill, 0, 0, 0)
    )


def rot90(image: Image, label: Label, rng: Draws, *, prob: float) -> Pair:
    """One of the quarter turns, then a flip along one axis.

    The second half of mmseg's `RandomRotFlip`; its first half, which interpolates labels, is not
    here.
    """
    if prob < 1.0 and rng.random() >= prob:
        return image, label
    turns, axis = int(rng.integers(0, 4)), int(rng.integers(0, 2))
    image, label = (np.flip(np.rot90(x, turns), axis=axis).copy() for x in (image, label))
    return image, label


def resize_steps(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    scale: tuple[int, int],
    factors: tuple[float, float],
    step: float,
) -> Pair:
    """Scales to fit `scale` (width, height) times one of the factors.

    mmseg's `RandomChoiceResize(scales=[...], keep_ratio=True)` with these scales.
    """
    factor = _one_of(rng, factors, step)
    fitted = max(int(scale[0] * factor), 1), max(int(scale[1] * factor), 1)
    size = mmseg.keep_ratio_size(label.shape, fitted)
    return mmseg.resize_image(image, *size), mmseg.resize_label(label, *size)


def scale_steps(
    image: Image, label: Label, rng: Draws, *, factors: tuple[float, float], step: float
) -> Pair:
    """Scales an image by one of the factors (PaddleSeg's `ResizeStepScaling`)."""
    factor = _one_of(rng, factors, step)
    height, width = (max(round(factor * side), 1) for side in label.shape)
    return mmseg.resize_image(image, height, width), mmseg.resize_label(label, height, width)


def _one_of(rng: Draws, factors: tuple[float, float], step: float) -> float:
    """One of low, low + step, ..., high, spread evenly as PaddleSeg does."""
    low, high = factors
    choices = np.linspace(low, high, int((high - low) / step + 1))
    return float(choices[rng.integers(0, len(choices))])


def cutout(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    prob: float,
    holes: tuple[int, int],
    size: tuple[float, float],
    fill: int,
) -> tuple[Image, Label]:
    """Blackens rectangles (mmseg's `RandomCutOut` with one `cutout_ratio`).

    Args:
      holes: fewest and most of them.
      size: width and height of each, as shares of the image's; at the border they are cut off.
      fill: label of their pixels; -1: as it was.
    """
    if rng.random() >= prob:
        return image, label
    count = int(rng.integers(holes[0], holes[1] + 1))
    height, width = label.shape
    image, label = image.copy(), label.copy()
    for _ in range(count):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        rng.integers(0, 1)  # mmseg draws which of its sizes; there is one
        _blacken(image, label, (y, y + int(size[1] * height)), (x, x + int(size[0] * width)), fill)
    return image, label


def erase(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    prob: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
    fill: int,
) -> tuple[Image, Label]:
    """Blackens one rectangle that lies within the image (torchvision's `RandomErasing`).

    Random erasing, arXiv 1708.04896.

    Args:
      area: smallest and largest share of the image.
      aspect: smallest and largest ratio of height to width.
      fill: label of its pixels; -1: as it was.
    """
    if rng.random() >= prob:
        return image, label
    height, width = label.shape
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if h < height and w < width:
            y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            image, label = image.copy(), label.copy()
            _blacken(image, label, (y, y + h), (x, x + w), fill)
            break
    return image, label


def _blacken(image: Image, label: Label, rows: tuple[int, int], columns: tuple[int, int], fill):
    image[slice(*rows), slice(*columns)] = 0
    if fill >= 0:
        label[slice(*rows), slice(*columns)] = fill
