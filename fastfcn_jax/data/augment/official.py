"""Training augmentation of the official FastFCN code, with Pillow and its order of draws."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from fastfcn_jax.data.augment.mmseg import Augmented, Draws
from fastfcn_jax.data.source import IGNORE_LABEL


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
    picture, labels = Image.fromarray(image), Image.fromarray(label)
    if rng.random() < flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        labels = labels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    short_side = int(rng.integers(int(base_size * 0.5), int(base_size * 2.0) + 1))
    size = _scaled(picture.size, short_side)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    labels = labels.resize(size, Image.Resampling.NEAREST)
    if rotation:
        degrees = rng.uniform(-rotation, rotation)
        picture = picture.rotate(degrees, resample=Image.Resampling.BILINEAR)
        labels = labels.rotate(degrees, resample=Image.Resampling.NEAREST, fillcolor=padding_label)
    height, width = crop_size
    padded = (max(size[0], width), max(size[1], height))
    picture = _padded(picture, padded, 0)
    labels = _padded(labels, padded, padding_label)
    x = int(rng.integers(0, padded[0] - width + 1))
    y = int(rng.integers(0, padded[1] - height + 1))
    box = (x, y, x + width, y + height)
    picture, labels = picture.crop(box), labels.crop(box)
    if blur and rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(radius=rng.random()))
    return Augmented(np.array(picture), np.array(labels), (height, width))


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
