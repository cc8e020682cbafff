"""Training augmentation of mmsegmentation 1.2.2: pure functions of image, label and random draws.

Images are uint8 RGB, labels uint8 with 255 = ignore. Random numbers are drawn in mmseg's order:
given the same ones, every function returns exactly what mmseg's transform returns. All but the
photometric distortion also take images of other channels and types.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.data.resize import by_fours, resize
from fastfcn_jax.data.source import IGNORE_LABEL

Image = Num[np.ndarray, "h w c"]
Colors = UInt8[np.ndarray, "h w 3"]
Label = UInt8[np.ndarray, "h w"]
_VALUES = np.arange(256, dtype=np.uint8)


@runtime_checkable
class Draws(Protocol):
    """The methods of `np.random.Generator` that the transforms use."""

    def random(self) -> float: ...

    def uniform(self, low: float, high: float) -> float: ...

    def integers(self, low: int, high: int) -> int: ...


class Augmented(NamedTuple):
    """A training sample of crop size; `size` is (height, width) before padding."""

    image: Image
    label: Label
    size: tuple[int, int]


class Distortion(NamedTuple):
    """Random numbers of a photometric distortion; None: that change is not made."""

    brightness: float | None  # added, of 255
    contrast: float | None  # factor
    contrast_first: bool  # before saturation and hue
    saturation: float | None  # factor
    hue: int | None  # added, in steps of 2 degrees


def augment(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    resize_scale: tuple[int, int],
    ratio_range: tuple[float, float],
    cat_max_ratio: float,
    flip: float,
    photometric: bool,
) -> Augmented:
    """mmseg's FastFCN training pipeline: resize, crop, flip, photometric distortion, pad.

    Args:
      crop_size: (height, width) of the result.
      resize_scale: (width, height) that an image is scaled to fit when the ratio is 1.
      ratio_range: bounds of the random factor on `resize_scale`.
      cat_max_ratio: draw another crop if one class has at least this share; 1: never.
      flip: probability of a horizontal flip.
      photometric: distort brightness, contrast, saturation and hue.
    """
    image, label = random_resize(image, label, rng, scale=resize_scale, ratio_range=ratio_range)
    image, label = random_crop(image, label, rng, crop_size=crop_size, cat_max_ratio=cat_max_ratio)
    image, label = random_flip(image, label, rng, probability=flip)
    return finish(image, label, rng, crop_size=crop_size, photometric=photometric)


def finish(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    photometric: bool,
) -> Augmented:
    """The steps after the flip: photometric distortion, padding to the crop size."""
    if photometric:
        image, label = distort(image, label, rng)
    return pad(image, label, crop_size)


def random_resize(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    scale: tuple[int, int],
    ratio_range: tuple[float, float],
) -> tuple[Num[np.ndarray, "h2 w2 c"], UInt8[np.ndarray, "h2 w2"]]:
    """Scales to fit (width, height) times a random factor."""
    height, width = draw_size(image.shape[:2], rng, scale=scale, ratio_range=ratio_range)
    return resize_image(image, height, width), resize_label(label, height, width)


def random_crop(
    image: Image, label: Label, rng: Draws, *, crop_size: tuple[int, int], cat_max_ratio: float
) -> tuple[Num[np.ndarray, "h2 w2 c"], UInt8[np.ndarray, "h2 w2"]]:
    """A random crop (see `draw_crop`); images that are smaller stay so."""
    height, width = crop_size
    y, x = draw_crop(
        lambda y, x: label[y : y + height, x : x + width],
        label.shape,
        rng,
        crop_size=crop_size,
        cat_max_ratio=cat_max_ratio,
    )
    return image[y : y + height, x : x + width], label[y : y + height, x : x + width]


def distort(image: Colors, label: Label, rng: Draws) -> tuple[Colors, Label]:
    """`photometric_distortion` of the image."""
    return photometric_distortion(image, rng), label


def keep_ratio_size(size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the largest image that fits `scale`, whose order does not matter.

    At least one pixel each way.
    """
    height, width = size
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def draw_size(
    size: tuple[int, int],
    rng: Draws,
    *,
    scale: tuple[int, int],
    ratio_range: tuple[float, float],
) -> tuple[int, int]:
    """Random (height, width): the image scaled to fit (width, height) times a random factor."""
    low, high = ratio_range
    ratio = rng.random() * (high - low) + low
    return keep_ratio_size(size, (max(int(scale[0] * ratio), 1), max(int(scale[1] * ratio), 1)))


def resize_image(image: Image, height: int, width: int) -> Num[np.ndarray, "{height} {width} c"]:
    """Bilinear with half-pixel centres and without antialiasing, as OpenCV does on uint8."""
    return resize(image, (height, width))


def resize_label(label: Label, height: int, width: int) -> UInt8[np.ndarray, "{height} {width}"]:
    """Nearest neighbour as in OpenCV: source index floor(i * in / out), no half-pixel centres."""
    return cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)


def draw_crop(
    label_at,
    size: tuple[int, int],
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    cat_max_ratio: float,
) -> tuple[int, int]:
    """Random (y, x) of a crop, drawn again up to ten times while one class dominates it.

    `label_at(y, x)` returns the label of the crop there. As in mmseg, the crop drawn after the
    tenth rejection is used unchecked.
    """

    def draw() -> tuple[int, int]:
        y = rng.integers(0, max(size[0] - crop_size[0], 0) + 1)
        x = rng.integers(0, max(size[1] - crop_size[1], 0) + 1)
        return int(y), int(x)

    y, x = draw()
    if cat_max_ratio < 1:
        for _ in range(10):
            if not one_class_fills(label_at(y, x), cat_max_ratio):
                break
            y, x = draw()
    return y, x


def one_class_fills(label: Label, share: float) -> bool:
    """Whether one class has at least `share` (< 1) of the valid pixels, or none is valid.

    Faster than a histogram: classes are counted in the order of their frequency in a sample of the
    pixels, until the pixels left are too few for any other class to reach `share`. That takes one
    or two passes.
    """
    valid = rest = label.size - np.count_nonzero(label == IGNORE_LABEL)
    sampled = np.bincount(label[::16, ::16].ravel(), minlength=256)[:IGNORE_LABEL]
    for k in np.argsort(-sampled).tolist() if valid else ():
        count = np.count_nonzero(label == k)
        if count / valid >= share:
            return True
        rest -= count
        if rest / valid < share:
            return False
    return True


def random_flip(
    image: Image, label: Label, rng: Draws, *, probability: float
) -> tuple[Image, Label]:
    """Flips horizontally with the given probability."""
    if rng.random() < probability:
        return by_fours(lambda x: cv2.flip(x, 1), image), cv2.flip(label, 1)
    return image, label


def photometric_distortion(image: Colors, rng: Draws) -> Colors:
    """mmseg's PhotoMetricDistortion: each of four changes with probability 1/2.

    Every change truncates to uint8, so brightness and contrast can be looked up in a table of 256
    values.
    """
    drawn, table = draw_distortion(rng), _VALUES
    if drawn.brightness is not None:
        table = _affine(table, 1, drawn.brightness)
    if drawn.contrast is not None and drawn.contrast_first:
        table = _affine(table, drawn.contrast, 0)
    if table is not _VALUES:
        image = _mapped(image, table)
    if drawn.saturation is not None:
        image = _in_hsv(image, 1, _affine(_VALUES, drawn.saturation, 0))
    if drawn.hue is not None:
        image = _in_hsv(image, 0, ((np.arange(256) + drawn.hue) % 180).astype(np.uint8))
    if drawn.contrast is not None and not drawn.contrast_first:
        image = cv2.LUT(image, _affine(_VALUES, drawn.contrast, 0))
    return image


def draw_distortion(
    rng: Draws,
    *,
    brightness: float = 32,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: int = 18,
) -> Distortion:
    """The random numbers of a distortion, in mmseg's order.

    Contrast comes first if the mode drawn is 1 (mmseg's code; its comment says 0).
    """

    def sometimes(draw, *bounds):
        return draw(*bounds) if rng.integers(0, 2) else None

    shift = sometimes(rng.uniform, -brightness, brightness)
    first = rng.integers(0, 2) == 1
    factor = sometimes(rng.uniform, *contrast) if first else None
    colour = sometimes(rng.uniform, *saturation)
    turn = sometimes(rng.integers, -hue, hue)
    if not first:
        factor = sometimes(rng.uniform, *contrast)
    return Distortion(shift, factor, bool(first), colour, None if turn is None else int(turn))


def _affine(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    scaled = values.astype(np.float32) * float(factor) + float(offset)
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _mapped(image: Colors, table: np.ndarray) -> Colors:
    """Looks each value up. A table that only shifts is an addition, five times as fast."""
    shift = int(table[128]) - 128
    if np.array_equal(table, np.clip(np.arange(256) + shift, 0, 255)):
        scalar: Any = (shift, shift, shift, 0)  # OpenCV's type annotation allows arrays only
        return cv2.add(image, scalar)
    return cv2.LUT(image, table)


def _in_hsv(image: Colors, channel: int, table: np.ndarray) -> Colors:
    """Looks up one channel of OpenCV's uint8 HSV (hue 0..179) in a table."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def pad(image: Image, label: Label, crop_size: tuple[int, int]) -> Augmented:
    """Pads right and bottom to the crop size: image 0, label 255.

    mmseg pads after normalising. Here the model normalises, and then sets everything outside
    `size` to 0; so the value used here does not matter.
    """
    size = image.shape[:2]
    if size != tuple(crop_size):
        bottom, right = crop_size[0] - size[0], crop_size[1] - size[1]
        image = np.pad(image, ((0, bottom), (0, right), (0, 0)))
        label = np.pad(label, ((0, bottom), (0, right)), constant_values=IGNORE_LABEL)
    return Augmented(np.ascontiguousarray(image), np.ascontiguousarray(label), size)
