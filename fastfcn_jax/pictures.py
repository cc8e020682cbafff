"""Draws label maps in their palette, alone or over the photograph, with a legend."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Int, Num, UInt8

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND = ("background", "bg")
LINE = 22  # height of a legend entry in pixels


def colorize(
    labels: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "k 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB image of class indices; indices beyond the palette (255 = ignore) are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def as_rgb(image: Num[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image of any kind as a picture; 8-bit RGB is returned unchanged.

    The first three channels are taken for red, green and blue, of fewer the first for all; values
    of other types are stretched so that 1 % of them are black and 1 % white.
    """
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return image
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    shown = shown.astype(np.float32)
    sample = shown[:: max(len(shown) // 256, 1), :: max(shown.shape[1] // 256, 1)]
    sample = sample[np.isfinite(sample).all(axis=2)]
    if not len(sample):
        return np.zeros(shown.shape, np.uint8)
    low, high = np.percentile(sample, (1, 99), axis=0)
    stretched = (np.nan_to_num(shown) - low) * (255 / np.maximum(high - low, 1e-12))
    return np.clip(stretched, 0, 255).astype(np.uint8)


def overlay(
    image: Num[np.ndarray, "h w c"],
    labels: UInt8[np.ndarray, "h w"],
    palette: UInt8[np.ndarray, "k 3"],
    opacity: float = 0.5,
    clear: Sequence[int] = (),
) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph (see `as_rgb`) overlaid with its classes' colours, but those in `clear`."""
    image = as_rgb(image)
    drawn = cv2.addWeighted(image, 1 - opacity, colorize(labels, palette), opacity, 0)
    for label in clear:
        np.copyto(drawn, image, where=(labels == label)[..., None])
    return drawn


def background(class_names: Sequence[str]) -> tuple[int, ...]:
    """The class called background, bg or the like, if there is one: overlays leave it clear."""
    return tuple(k for k, n in enumerate(class_names) if n.strip("_ ").casefold() in _BACKGROUND)


def with_legend(
    picture: UInt8[np.ndarray, "h w 3"],
    labels: UInt8[np.ndarray, "h w"],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "k 3"],
) -> UInt8[np.ndarray, "h2 w 3"]:
    """The picture with a legend below it: its classes and their share of the pixels."""
    strip = legend(labels, class_names, palette, picture.shape[1])
    return np.concatenate([picture, strip])


def legend(
    labels: UInt8[np.ndarray, "h w"],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "k 3"],
    width: int,
    lines: int | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The legend alone, `width` pixels wide, the largest classes first.

    Args:
      lines: number of lines of the legend; None: as many as it needs.
    """
    return legend_of(counts(labels), class_names, palette, width, lines)


def counts(labels: UInt8[np.ndarray, "h w"]) -> Int[np.ndarray, "256"]:
    """The number of pixels with each value."""
    # Row by row: bincount converts its input to int64, eight times the memory of the label map.
    found = np.zeros(256, np.int64)
    for row in labels:
        found += np.bincount(row, minlength=256)
    return found


def legend_of(
    counts: Int[np.ndarray, "256"],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "k 3"],
    width: int,
    lines: int | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The legend of a label map of which only the counts are known; else as `legend`."""
    total = counts.sum()
    counts = counts[: len(class_names)]
    present = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    texts = [f"{class_names[k]} {100 * counts[k] / total:.1f}%" for k in present]
    widths = [LINE + 10 + cv2.getTextSize(text, _FONT, 0.5, 1)[0][0] for text in texts]
    x, y, places = 0, 0, []
    for entry in widths:
        if x and x + entry > width:
            x, y = 0, y + LINE
        if lines and y == lines * LINE:
            break
        places.append((x, y))
        x += entry
    strip = np.full((lines * LINE if lines else y + LINE, width, 3), 255, np.uint8)
    for k, text, (x, y) in zip(present, texts, places, strict=False):
        color = tuple(map(int, palette[k]))
        cv2.rectangle(strip, (x + 4, y + 4), (x + LINE - 4, y + LINE - 4), color, -1)
        cv2.putText(strip, text, (x + LINE, y + 16), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
