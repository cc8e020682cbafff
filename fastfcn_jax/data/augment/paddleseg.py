"""Training augmentation of PaddleSeg's FastFCN, with OpenCV, Pillow and its order of draws."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.data.augment.mmseg import Augmented
from fastfcn_jax.data.source import IGNORE_LABEL

_PADDING = 127.5  # grey; the conversion to 8 bits makes it 127
_RANGE = 0.4  # brightness, contrast and saturation: factors of 0.6 to 1.4
_HUE = 18.0  # largest change of hue, in 256ths of the circle


@runtime_checkable
class Draws(mmseg.Draws, Protocol):
    """The methods of `np.random.Generator` that the augmentation uses."""

    def permutation(self, x: int) -> Sequence[int]: ...


def factors(ends: tuple[float, float], step: float) -> tuple[float, ...]:
    """The factors that images are scaled by, about `step` apart; both ends are among them."""
    low, high = ends
    return tuple(np.linspace(low, high, int((high - low) / step + 1)).tolist())


def augment(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    ratios: Sequence[float],
    flip: float,
    photometric: bool,
) -> Augmented:
    """Scale, pad, crop, flip, distort (ResizeStepScaling, RandomPaddingCrop, RandomDistort).

    Between scaling and distortion PaddleSeg keeps fractions, which it then cuts off. Padding is
    grey and distorted like the image, so `size` is the whole crop.

    Args:
      crop_size: (height, width) of the result.
      ratios: the image's own size is multiplied by one of these; see `factors`.
      flip: probability of a horizontal flip.
      photometric: brightness, contrast, saturation and hue in random order, each with
        probability 1/2.
    """
    ratio = ratios[rng.permutation(len(ratios))[0]]
    width, height = (round(ratio * side) for side in (image.shape[1], image.shape[0]))
    size = max(width, 1), max(height, 1)
    picture = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    if labels.shape != tuple(crop_size):
        picture, labels = _padded(picture, labels, crop_size)
        y, x = (
            int(rng.integers(0, side - crop + 1))
            for side, crop in zip(labels.shape, crop_size, strict=True)
        )
        box = slice(y, y + crop_size[0]), slice(x, x + crop_size[1])
        picture, labels = picture[box], labels[box]
    if rng.random() < flip:
        picture, labels = picture[:, ::-1], labels[:, ::-1]
    whole = picture.astype(np.uint8)
    if photometric:
        whole = _distorted(whole, rng)
    return Augmented(np.ascontiguousarray(whole), np.ascontiguousarray(labels), crop_size)


def _padded(picture, labels, crop_size: tuple[int, int]):
    """Pads right and bottom up to the crop's size."""
    bottom, right = (
        max(crop - side, 0) for crop, side in zip(crop_size, labels.shape, strict=True)
    )
    sides = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
    if not bottom and not right:
        return picture, labels
    return (
        cv2.copyMakeBorder(picture, *sides, value=(_PADDING,) * 3),
        cv2.copyMakeBorder(labels, *sides, value=(IGNORE_LABEL,)),
    )


def _distorted(image: UInt8[np.ndarray, "h w 3"], rng: Draws) -> UInt8[np.ndarray, "h w 3"]:
    picture = Image.fromarray(image)
    for i in rng.permutation(len(_CHANGES)):
        # The draw is made for sharpness too, whose probability in PaddleSeg is 0.
        if rng.uniform(0.0, 1.0) < 0.5 and (change := _CHANGES[i]) is not None:
            picture = change(picture, rng)
    return np.asarray(picture)


def _enhanced(kind) -> Callable[[Image.Image, Draws], Image.Image]:
    return lambda picture, rng: kind(picture).enhance(rng.uniform(1 - _RANGE, 1 + _RANGE))


def _hue(picture: Image.Image, rng: Draws) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    moved = np.trunc(np.asarray(hue) + rng.uniform(-_HUE, _HUE)).astype(np.int64)
    hue = Image.fromarray((moved & 255).astype(np.uint8))  # a circle of 256 steps
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


# In PaddleSeg's order; None: sharpness, which its probability of 0 never changes.
_CHANGES = (
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Color),
    None,
    _hue,
)
