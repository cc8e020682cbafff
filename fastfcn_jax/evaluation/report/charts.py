"""Small charts as inline SVG and pictures as data URLs, for a page in a single file."""

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

WIDTH, HEIGHT, LEFT, BOTTOM = 360, 170, 48, 22  # of a line chart, in pixels
CELL, MAX_NAMED = 20, 30  # pixels of a matrix cell; with more classes, names are left out

Points = Sequence[tuple[float, float]]


def line_chart(title: str, points: Points, unit: str = "") -> str:
    """A curve over steps, labelled with its smallest, largest and last value."""
    xs, ys = (np.array(axis, np.float64) for axis in zip(*points, strict=True))
    low, high = float(ys.min()), float(ys.max())
    span_x, span_y = max(float(np.ptp(xs)), 1e-9), max(high - low, 1e-9)
    x = LEFT + (xs - xs.min()) / span_x * (WIDTH - LEFT - 8)
    y = HEIGHT - BOTTOM - (ys - low) / span_y * (HEIGHT - BOTTOM - 12)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"><title>step {s:g}: {v:.4g}{unit}</title></circle>'
        for a, b, s, v in zip(x, y, xs, ys, strict=True)
        if len(xs) <= 60
    )
    floor = HEIGHT - BOTTOM
    labels = (
        _text(LEFT - 4, 16, f"{high:.3g}", "end")
        + _text(LEFT - 4, floor, f"{low:.3g}", "end")
        + _text(LEFT, HEIGHT - 6, f"{xs.min():g}", "start")
        + _text(WIDTH - 8, HEIGHT - 6, f"step {xs.max():g}", "end")
    )
    return (
        f"<figure><figcaption>{html.escape(title)}: {ys[-1]:.4g}{unit} at the last step"
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">'
        f'<path class="axis" d="M{LEFT},12V{floor}H{WIDTH - 8}"/>'
        f'<polyline class="curve" points="{path}"/>{dots}{labels}</svg></figure>'
    )


def bar(value: float, low: float, high: float, color: str) -> str:
    """A bar from 0 to `value`, out of 100, with an interval drawn over it."""
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="100" height="10" class="track"/>'
        f'<rect width="{value:.2f}" height="10" fill="{color}"/>'
        f'<rect x="{low:.2f}" y="4" width="{max(high - low, 0.3):.2f}" height="2" class="mark"/>'
        "</svg>"
    )


def reliability_chart(points: Points, shares: Sequence[float]) -> str:
    """Accuracy over confidence, each point as large as its share, with the diagonal."""
    floor = HEIGHT - BOTTOM
    width, height = WIDTH - LEFT - 8, floor - 12
    dots = "".join(
        f'<circle cx="{LEFT + x * width:.1f}" cy="{floor - y * height:.1f}" '
        f'r="{2 + 8 * share**0.5:.1f}"><title>confidence {100 * x:.1f} %: {100 * y:.1f} % right, '
        f"{100 * share:.1f} % of the pixels</title></circle>"
        for (x, y), share in zip(points, shares, strict=True)
    )
    labels = (
        _text(LEFT - 4, 16, "100 %", "end")
        + _text(LEFT - 4, floor, "0 %", "end")
        + _text(LEFT, HEIGHT - 6, "confidence 0 %", "start")
        + _text(WIDTH - 8, HEIGHT - 6, "100 %", "end")
    )
    return (
        "<figure><figcaption>Share of the pixels that are right, by the probability of their class"
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:36rem" role="img" '
        'aria-label="reliability diagram">'
        f'<path class="axis" d="M{LEFT},12V{floor}H{WIDTH - 8}"/>'
        f'<path class="axis" d="M{LEFT},{floor}L{WIDTH - 8},12"/>{dots}{labels}</svg></figure>'
    )


def heat_map(matrix: np.ndarray) -> UInt8[np.ndarray, "k k 3"]:
    """Square root of the share of each row, from white (0) to dark blue (1)."""
    rows = matrix.sum(axis=1, keepdims=True)
    share = np.sqrt(np.divide(matrix, rows, where=rows > 0, out=np.zeros(matrix.shape)))
    white, blue = np.array([255.0, 255, 255]), np.array([12.0, 44, 132])
    return np.round(white + share[..., None] * (blue - white)).astype(np.uint8)


def matrix_chart(matrix: np.ndarray, names: Sequence[str]) -> str:
    """The heat map, with the names of the classes at the left and below if there are few."""
    count = len(names)
    named = count <= MAX_NAMED
    side = CELL * count if named else 400
    margin = 8 + round(7.6 * max(map(len, names))) if named else 0  # for a wide font
    url = data_url(heat_map(matrix), photograph=False)
    labels = "".join(
        _text(margin - 6, CELL * (i + 0.7), name, "end")
        + f'<g transform="translate({margin + CELL * (i + 0.3):.0f},{side + 6}) rotate(90)">'
        + _text(0, 0, name, "start")
        + "</g>"
        for i, name in enumerate(names)
        if named
    )
    total = margin + side
    return (
        f'<svg class="matrix" viewBox="0 0 {total} {total}" style="max-width:{total}px" role="img" '
        f'aria-label="confusion matrix"><image x="{margin}" width="{side}" height="{side}" '
        f'href="{url}"/><rect class="axis" x="{margin}" width="{side}" height="{side}"/>'
        f"{labels}</svg>"
    )


def data_url(image: UInt8[np.ndarray, "h w 3"], *, photograph: bool) -> str:
    """The picture as a data URL: JPEG for photographs, PNG for drawings."""
    suffix, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 82]) if photograph else (".png", [])
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'
