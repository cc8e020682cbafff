"""mmseg's augmentation, but only the part of the image that the crop keeps is resized.

Random draws, geometry and labels are those of `mmseg.augment`; the image differs from it by the
rounding of the interpolation, at most one grey level (with OpenCV 5).
"""

import functools

import cv2
import numpy as np
from jaxtyping import Int, Num, UInt8

from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.data.augment.mmseg import Augmented, Draws
from fastfcn_jax.data.resize import by_fours


def augment(
    image: Num[np.ndarray, "h w c"],
    label: UInt8[np.ndarray, "h w"],
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    resize_scale: tuple[int, int],
    ratio_range: tuple[float, float],
    cat_max_ratio: float,
    flip: float,
    photometric: bool,
) -> Augmented:
    """As `mmseg.augment`. Of memory maps, only the windows needed are read."""
    image, label = resize_crop_flip(
        image,
        label,
        rng,
        crop_size=crop_size,
        resize_scale=resize_scale,
        ratio_range=ratio_range,
        cat_max_ratio=cat_max_ratio,
        flip=flip,
    )
    return mmseg.finish(image, label, rng, crop_size=crop_size, photometric=photometric)


def resize_crop_flip(
    image: Num[np.ndarray, "h w c"],
    label: UInt8[np.ndarray, "h w"],
    rng: Draws,
    *,
    crop_size: tuple[int, int],
    resize_scale: tuple[int, int],
    ratio_range: tuple[float, float],
    cat_max_ratio: float,
    flip: float | None,
) -> tuple[Num[np.ndarray, "h2 w2 c"], UInt8[np.ndarray, "h2 w2"]]:
    """The first three steps of `augment`; with `flip` None the first two."""
    size = mmseg.draw_size(image.shape[:2], rng, scale=resize_scale, ratio_range=ratio_range)
    rows, columns = (_nearest(image.shape[axis], size[axis]) for axis in (0, 1))
    h, w = crop_size

    @functools.cache  # draw_crop has already read the crop that it accepts
    def label_at(y: int, x: int) -> UInt8[np.ndarray, "_ _"]:
        return _take_label(label, rows[y : y + h], columns[x : x + w])

    y, x = mmseg.draw_crop(label_at, size, rng, crop_size=crop_size, cat_max_ratio=cat_max_ratio)
    kept = (min(h, size[0]), min(w, size[1]))
    label, mirrored = label_at(y, x), flip is not None and rng.random() < flip
    image = _take_image(image, size, (y, x), kept, mirrored)
    return image, cv2.flip(label, 1) if mirrored else label


def _step(length: int, resized: int) -> float:
    """Source pixels per resized pixel, rounded as OpenCV rounds it."""
    return 1.0 / (resized / length)


def _nearest(length: int, resized: int) -> Int[np.ndarray, "{resized}"]:
    """Source index of each resized pixel under INTER_NEAREST."""
    index = np.floor(np.arange(resized) * _step(length, resized)).astype(np.int64)
    return np.minimum(index, length - 1)


def _take_label(
    label: UInt8[np.ndarray, "h w"], rows: Int[np.ndarray, "r"], columns: Int[np.ndarray, "c"]
) -> UInt8[np.ndarray, "r c"]:
    top, left = rows[0], columns[0]
    window = label[top : rows[-1] + 1, left : columns[-1] + 1]
    # Taking whole rows is much faster than taking single pixels, so transpose to take columns.
    upright = cv2.transpose(window.take(rows - top, axis=0))
    return cv2.transpose(upright.take(columns - left, axis=0))


def _take_image(
    image: Num[np.ndarray, "h w c"],
    size: tuple[int, int],
    corner: tuple[int, int],
    kept: tuple[int, int],
    mirrored: bool,
) -> Num[np.ndarray, "_ _ c"]:
    """The window at `corner` of the image resized to `size`, bilinear with half-pixel centres."""
    (top, bottom, step_y, from_y), (left, right, step_x, from_x) = (
        _window(image.shape[axis], size[axis], corner[axis], kept[axis]) for axis in (0, 1)
    )
    if mirrored:
        from_x, step_x = from_x + (kept[1] - 1) * step_x, -step_x

    def warp(part: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(
            part,
            np.array([[step_x, 0, from_x], [0, step_y, from_y]]),
            (kept[1], kept[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    part = image[top:bottom, left:right]
    if part.shape[2] != 3:
        return by_fours(warp, part)
    # warpAffine is several times faster with four channels than with three.
    return cv2.cvtColor(warp(cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)), cv2.COLOR_RGBA2RGB)


def _window(length: int, resized: int, first: int, count: int) -> tuple[int, int, float, float]:
    """The source pixels that `count` resized pixels from `first` on need, along one axis.

    Returns:
      start and stop of the source pixels, with one more at either end; the distance between two
      resized pixels; the position of the first one relative to start. All in source pixels.
    """
    step = _step(length, resized)
    place = (first + 0.5) * step - 0.5
    start = max(int(place) - 1, 0)
    stop = min(int(place + (count - 1) * step) + 3, length)
    return start, stop, step, place - start
