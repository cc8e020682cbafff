"""Training augmentation of the official FastFCN code, with Pillow and its order of draws."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from fastfcn_jax.data.augment.mmseg import Augmented, Draws
from fastfcn_jax.data.source import IGNORE_LABEL

Pixels = UInt8[np.ndarray, "h w 3"]
Label = UInt8[np.ndarray, "h w"]
Arrays = tuple[UInt8[np.ndarray, "h2 w2 3"], UInt8[np.ndarray, "h2 w2"]]
Pair = tuple[Image.Image, Image.Image]


def augment(
    image: UInt8[np.ndarray, "h w 3"],
    label: UInt8[np.ndarray, "h w"],
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    base_size: int,
    flip: float,
    rotation: float,
    blur: bool,
    padding_label: int = IGNORE_LABEL,
) -> Augmented:
    """Flip, scale, rotate, pad, crop, blur (encoding/datasets/base.py and cityscapes.py).

    Pillow antialiases images that it shrinks. Padding is black and normalised like the image, so
    `size` is the whole crop. Labels are class indices already: where the official code pads with
    the raw id 0, this pads with what that means, `padding_label`.

    Args:
      crop_size: (height, width) of the result; square in the official code.
      base_size: the short side is scaled to a random integer from 0.5 to 2 times this, inclusive.
      flip: probability of a horizontal flip.
      rotation: largest angle in degrees, after scaling; 0: no rotation (and no draw).
      blur: Gaussian blur of radius 0..1 with probability 1/2.
      padding_label: 255 where 0 is "no class"; 0 on VOC and COCO, where it is the background.
    """
    pair = Image.fromarray(image), Image.fromarray(label)
    if rng.random() < flip:
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        pair = pair[0].transpose(mirror), pair[1].transpose(mirror)
    pair = _scale(*pair, rng, base_size)
    if rotation:
        pair = _rotate(*pair, rng, rotation, padding_label)
    pair = _pad_crop(*pair, rng, crop_size, padding_label)
    if blur:
        pair = _blur(*pair, rng)
    return Augmented(*_arrays(pair), crop_size)


def short_side(image: Pixels, label: Label, rng: Draws, *, base_size: int) -> Arrays:
    """The second step of `augment` alone, on arrays."""
    return _arrays(_scale(Image.fromarray(image), Image.fromarray(label), rng, base_size))


def rotate(
    image: Pixels, label: Label, rng: Draws, *, rotation: float, padding_label: int
) -> Arrays:
    """The third step of `augment` alone, on arrays."""
    pair = Image.fromarray(image), Image.fromarray(label)
    return _arrays(_rotate(*pair, rng, rotation, padding_label))


def pad_crop(
    image: Pixels, label: Label, rng: Draws, *, crop_size: tuple[int, int], padding_label: int
) -> Arrays:
    """Padding and crop of `augment` alone, on arrays."""
    pair = Image.fromarray(image), Image.fromarray(label)
    return _arrays(_pad_crop(*pair, rng, crop_size, padding_label))


def blur(image: Pixels, label: Label, rng: Draws) -> Arrays:
    """The last step of `augment` alone, on arrays."""
    return _arrays(_blur(Image.fromarray(image), Image.fromarray(label), rng))


def _arrays(pair: Pair) -> Arrays:
    return np.array(pair[0]), np.array(pair[1])


def _scale(picture: Image.Image, labels: Image.Image, rng: Draws, base_size: int) -> Pair:
    chosen = int(rng.integers(int(base_size * 0.5), int(base_size * 2.0) + 1))
    size = _scaled(picture.size, chosen)
    resampling = Image.Resampling
    return picture.resize(size, resampling.BILINEAR), labels.resize(size, resampling.NEAREST)


def _rotate(
    picture: Image.Image, labels: Image.Image, rng: Draws, rotation: float, padding_label: int
) -> Pair:
    degrees = rng.uniform(-rotation, rotation)
    picture = picture.rotate(degrees, resample=Image.Resampling.BILINEAR)
    return picture, labels.rotate(
        degrees, resample=Image.Resampling.NEAREST, fillcolor=padding_label
    )


def _pad_crop(
    picture: Image.Image,
    labels: Image.Image,
    rng: Draws,
    crop_size: tuple[int, int],
    padding_label: int,
) -> Pair:
    height, width = crop_size
    padded = (max(picture.size[0], width), max(picture.size[1], height))
    picture = _padded(picture, padded, 0)
    labels = _padded(labels, padded, padding_label)
    x = int(rng.integers(0, padded[0] - width + 1))
    y = int(rng.integers(0, padded[1] - height + 1))
    box = (x, y, x + width, y + height)
    return picture.crop(box), labels.crop(box)


def _blur(picture: Image.Image, labels: Image.Image, rng: Draws) -> Pair:
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(radius=rng.random()))
    return picture, labels


def _scaled(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(width, height) with the given short side; the long side is truncated to an integer."""
    width, height = size
    if height > width:
        return short_side, int(1.0 * height * short_side / width)
    return int(1.0 * width * short_side / height), short_side


def _padded(picture: Image.Image, size: tuple[int, int], fill: int) -> Image.Image:
    """Pads right and bottom."""
    if picture.size == size:
        return picture
    canvas = Image.new(picture.mode, size, fill if picture.mode == "L" else (fill,) * 3)
    canvas.paste(picture)
    return canvas
