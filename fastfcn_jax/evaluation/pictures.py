"""Label maps drawn in their palette, alone or over the photograph."""

import numpy as np
from jaxtyping import UInt8


def colorize(
    labels: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "k 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of class indices; indices beyond the palette (255 = ignore) are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    labels: UInt8[np.ndarray, "h w"],
    palette: UInt8[np.ndarray, "k 3"],
    opacity: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph under its class colours."""
    blend = image * (1 - opacity) + colorize(labels, palette) * opacity
    return np.round(blend).astype(np.uint8)
