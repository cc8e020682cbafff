"""Curves over steps: several in one chart, with a legend and the values under the pointer."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastfcn_jax.evaluation.report import axes

MOST = 600  # points of a curve; more cannot be told apart on a screen
DOTTED = 40  # a curve of at most so many points shows each
COLORS = 8  # `.s0` ... of the style sheet; later curves repeat them, dashed

Points = Sequence[tuple[float, float]]


class Curve(NamedTuple):
    """Values over steps, both finite.

    style: classes of the style sheet that set `--color`; "": by the place among the others.
    """

    name: str
    points: Points
    style: str = ""


def chart(title: str, curves: Sequence[Curve], unit: str = "") -> str:
    """A chart of all curves that have a point; "" if none has.

    A single curve's last value is in the caption, several have a legend.
    """
    styled = [(c, c.style or style(i)) for i, c in enumerate(curves) if len(c.points)]
    if not styled:
        return ""
    every = np.array([point for curve, _ in styled for point in curve.points], np.float64)
    (left, low), (right, high) = every.min(axis=0).tolist(), every.max(axis=0).tolist()
    drawn = axes.draw((left, right), (low, high), "step", percent="%" in unit)
    lines = "".join(_line(curve, style, drawn) for curve, style in styled)
    name = html.escape(title)
    said, legend = "", ""
    if len(curves) == 1:
        said = f": {styled[0][0].points[-1][1]:.4g}{unit} at the last step"
    else:
        legend = "".join(f'<li class="{s}"><i class="line"></i>{html.escape(c.name)}</li>'
                         for c, s in styled)  # fmt: skip
        legend = f'<ul class="legend">{legend}</ul>'
    span = f"{drawn.x.start:.1f} {drawn.x.end} {axes.TOP} {drawn.y.start}"
    return (
        f'<figure class="chart"><figcaption>{name}{said}</figcaption>'
        f'<svg viewBox="0 0 {axes.WIDTH} {axes.HEIGHT}" role="img" aria-label="{name}" '
        f'data-unit="{unit}" data-area="{span}">{drawn.svg}{lines}</svg>{legend}</figure>'
    )


def style(index: int) -> str:
    """The classes of the curve at this place."""
    return f"s{index % COLORS}" + (" dashed" if index >= COLORS else "")


def thinned(points: Points, most: int = MOST) -> list[tuple[float, float]]:
    """At most about `most` points: the smallest and the largest of each stretch, and the ends."""
    if len(points) <= most:
        return list(points)
    values = np.array([value for _, value in points])
    parts = np.array_split(np.arange(len(points)), most // 2)
    kept = {0, len(points) - 1}
    for part in parts:
        kept |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    return [points[i] for i in sorted(kept)]


def _line(curve: Curve, style: str, drawn: axes.Axes) -> str:
    points = thinned(curve.points)
    path = " ".join(f"{drawn.x(step):.1f},{drawn.y(value):.1f}" for step, value in points)
    dots = "".join(
        f'<circle cx="{drawn.x(step):.1f}" cy="{drawn.y(value):.1f}" r="2.5"/>'
        for step, value in points
        if len(points) <= DOTTED
    )
    return (
        f'<g class="curve {style}" data-name="{html.escape(curve.name)}" '
        f'data-steps="{_spaced(points, 0, "g")}" data-values="{_spaced(points, 1, ".4g")}">'
        f'<polyline points="{path}"/>{dots}</g>'
    )


def _spaced(points: Points, place: int, form: str) -> str:
    return " ".join(format(point[place], form) for point in points)
