"""The colours of classes as style rules, for light and for dark pages."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

LEAST = 3.0  # contrast of a curve with the page, of WCAG 2.1 for graphical objects
LIGHT, DARK = (255, 255, 255), (18, 18, 18)  # browsers' pages


def rules(palette: UInt8[np.ndarray, "k 3"]) -> str:
    """Rules for `.k0`, `.k1`, ...: `--fill` is the palette's colour, `--color` one that is seen.

    A class's black curve would vanish on a dark page, and a white one on a light page.
    """
    colors = palette.tolist()
    light, dark = (
        "".join(f".k{k}{{--color:{_written(seen_on(page, c))}}}" for k, c in enumerate(colors))
        for page in (LIGHT, DARK)
    )
    fills = "".join(f".k{k}{{--fill:{_written(c)}}}" for k, c in enumerate(colors))
    return f"{fills}{light}@media (prefers-color-scheme:dark){{{dark}}}"


def seen_on(page: Sequence[int], color: Sequence[int]) -> tuple[int, int, int]:
    """The colour mixed with as little black or white as its contrast with the page needs."""
    against = 0 if luminance(page) > 0.5 else 255
    for share in np.linspace(0, 1, 33):
        r, g, b = (round((1 - share) * c + share * against) for c in color)
        if contrast((r, g, b), page) >= LEAST:
            return r, g, b
    raise AssertionError("black on white has a contrast of 21")


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """WCAG 2.1's contrast ratio, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: Sequence[int]) -> float:
    """Relative luminance of an sRGB colour, from 0 to 1."""
    shares = (c / 255 for c in color)
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _written(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
