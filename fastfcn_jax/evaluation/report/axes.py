"""The axes of a chart as inline SVG: ticks at round numbers, their grid, and the scales."""

import html
import math
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 360, 216  # of a chart, in pixels
RIGHT, TOP, BOTTOM = 12, 10, 38  # margins; the left one grows with the labels
CHARACTER = 6.8  # pixels; the widest digit of the usual fonts at 12 px


class Scale(NamedTuple):
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value):
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Axes(NamedTuple):
    """The scales of both axes and the drawing of them."""

    x: Scale
    y: Scale
    svg: str


def draw(
    xs: tuple[float, float], ys: tuple[float, float], x_name: str, *, percent: bool = False
) -> Axes:
    """Axes around values: the x axis ends at them, the y axis at the round numbers outside.

    Args:
      xs, ys: smallest and largest value; they may be equal.
      percent: the y axis does not leave 0 to 100, and begins at 0 if that is not far.
    """
    if percent:
        ys = (0.0 if ys[0] < ys[1] / 2 + 1 else ys[0], max(ys[1], 1.0))
    y_ticks = ticks(*_apart(*ys), 5)
    low, high = _apart(*xs)
    x_ticks = [tick for tick in ticks(low, high, 5) if low <= tick <= high]
    if percent:
        y_ticks = [tick for tick in y_ticks if tick <= 100]
    named = [label(tick) for tick in y_ticks]
    left = 10 + CHARACTER * max(map(len, named))
    x = Scale(low, high, left, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    drawn = [
        f'<path class="grid" d="M{left:.1f},{y(tick):.1f}H{WIDTH - RIGHT}"/>'
        + text(left - 6, y(tick) + 4, name, "end")
        for tick, name in zip(y_ticks, named, strict=True)
    ] + [
        f'<path class="grid" d="M{x(tick):.1f},{TOP}V{HEIGHT - BOTTOM}"/>'
        + text(x(tick), HEIGHT - BOTTOM + 16, label(tick), "middle")
        for tick in x_ticks
    ]
    frame = f'<path class="axis" d="M{left:.1f},{TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
    middle = (left + WIDTH - RIGHT) / 2
    return Axes(x, y, "".join(drawn) + frame + text(middle, HEIGHT - 5, x_name, "middle"))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers at equal distances, from at most `low` to at least `high`."""
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = min((1, 2, 2.5, 5, 10), key=lambda m: abs((high - low) / (m * power) - count)) * power
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def label(value: float) -> str:
    """A tick in few characters: 20000 is 20k."""
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return np.format_float_positional(value, trim="-") if abs(value) >= 1e-4 else f"{value:g}"


def text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _apart(low: float, high: float) -> tuple[float, float]:
    """The range, widened if it is too narrow to be divided."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    margin = abs(low) / 10 or 1.0
    return low - margin, high + margin
