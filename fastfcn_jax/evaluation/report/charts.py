"""Small charts as inline SVG and pictures as data URLs, for a page in a single file."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.evaluation.report import axes
from fastfcn_jax.evaluation.report.curves import Points


def bar(value: float, low: float, high: float, style: str) -> str:
    """A bar from 0 to `value`, out of 100, with an interval drawn over it.

    Both have an outline: a bar or an interval of the colour behind it would not be seen.

    Args:
      style: class of the style sheet that sets `--fill`.
    """
    ends = f"M{low:.2f},3V9M{low:.2f},6H{high:.2f}M{high:.2f},3V9"
    interval = f'<path class="halo" d="{ends}"/><path class="mark" d="{ends}"/>'
    return (
        f'<svg class="bar {style}" viewBox="0 0 100 12" preserveAspectRatio="none" '
        'aria-hidden="true"><rect width="100" height="12" class="track"/>'
        f'<rect width="{value:.2f}" height="12" class="value"/>'
        f"{interval if high >= low else ''}</svg>"
    )


def reliability_chart(points: Points, shares: Sequence[float]) -> str:
    """Accuracy over confidence, each point as large as its share, with the diagonal."""
    drawn = axes.draw((0.0, 100.0), (0.0, 100.0), "confidence, %")
    dots = "".join(
        f'<circle cx="{drawn.x(100 * x):.1f}" cy="{drawn.y(100 * y):.1f}" '
        f'r="{2 + 8 * share**0.5:.1f}"><title>confidence {100 * x:.1f} %: {100 * y:.1f} % right, '
        f"{100 * share:.1f} % of the pixels</title></circle>"
        for (x, y), share in zip(points, shares, strict=True)
    )
    diagonal = f"M{drawn.x(0):.1f},{drawn.y(0):.1f}L{drawn.x(100):.1f},{drawn.y(100):.1f}"
    return (
        "<figure><figcaption>Share of the pixels that are right, in percent, by the probability "
        f'of their class</figcaption><svg class="single" viewBox="0 0 {axes.WIDTH} {axes.HEIGHT}" '
        f'role="img" aria-label="reliability diagram">{drawn.svg}'
        f'<path class="axis" d="{diagonal}"/><g class="curve s0">{dots}</g></svg></figure>'
    )


def data_url(image: UInt8[np.ndarray, "h w c"], *, photograph: bool) -> str:
    """An RGB or RGBA picture as a data URL: JPEG for photographs, PNG for drawings."""
    if photograph:
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 82]
    else:
        suffix, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9]
    order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, order), options)
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
