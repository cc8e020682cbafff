"""The confusion matrix as a chart: colour, numbers, and the counts for the cell pointed at."""

import html
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from fastfcn_jax.evaluation.report import axes, charts

CELL, MOST = 30, 30  # pixels of a cell; with more classes there is neither a name nor a number
PLAIN = 480  # side of a matrix without names
LEAST = 0.005  # share of a row from which its number is written


def chart(matrix: Int[np.ndarray, "k k"], names: Sequence[str]) -> str:
    """Rows label, columns prediction, each cell the share of its row in percent.

    A script shows the counts of a cell, which it reads from the element.
    """
    shares = row_shares(matrix)
    named = len(names) <= MOST
    margin = 10 + round(7.2 * max(map(len, names))) if named else 1
    side = CELL * len(names) if named else PLAIN
    cells = _cells(shares, margin) if named else _picture(shares, side)
    labels = "".join(_names(i, name, margin, side) for i, name in enumerate(names) if named)
    data = html.escape(json.dumps({"names": list(names), "counts": matrix.tolist()}))
    total = margin + side + 1
    return (
        f'<svg class="matrix" viewBox="0 0 {total} {total}" width="{total}" height="{total}" '
        f'role="img" aria-label="confusion matrix" data-matrix="{data}" '
        f'data-area="{margin} {side}">{cells}'
        f'<rect class="axis" x="{margin}" y=".5" width="{side}" height="{side}"/>{labels}</svg>'
    )


def row_shares(matrix: Int[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Each cell divided by the sum of its row; 0 in rows without a pixel."""
    rows = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, rows, where=rows > 0, out=np.zeros(matrix.shape))


def _cells(shares: Float[np.ndarray, "k k"], margin: int) -> str:
    drawn = []
    for (i, j), share in np.ndenumerate(shares):
        if share >= LEAST / 10:
            x, y, deep = margin + CELL * j, CELL * i, np.sqrt(share)
            drawn.append(
                f'<rect class="cell" x="{x}" y="{y}" width="{CELL}" height="{CELL}" '
                f'fill-opacity="{deep:.2f}"/>'
            )
            if share >= LEAST:
                kind = ' class="deep"' if deep > 0.6 else ""
                drawn.append(
                    f'<text{kind} x="{x + CELL / 2:g}" y="{y + CELL / 2 + 4:g}" '
                    f'text-anchor="middle">{100 * share:.0f}</text>'
                )
    return "".join(drawn)


def _names(index: int, name: str, margin: int, side: int) -> str:
    across = margin + CELL * index + CELL / 2 - 4
    return axes.text(margin - 6, CELL * index + CELL / 2 + 4, name, "end") + (
        f'<g transform="translate({across:g},{side + 7}) rotate(90)">'
        f"{axes.text(0, 0, name, 'start')}</g>"
    )


def _picture(shares: Float[np.ndarray, "k k"], side: int) -> str:
    url = charts.data_url(heat_map(shares), photograph=False)
    return f'<image x="1" width="{side}" height="{side}" href="{url}"/>'


def heat_map(shares: Float[np.ndarray, "k k"]) -> UInt8[np.ndarray, "k k 3"]:
    """Square root of the shares, from white (0) to dark blue (1)."""
    white, blue = np.array([255.0, 255, 255]), np.array([12.0, 44, 132])
    return np.round(white + np.sqrt(shares)[..., None] * (blue - white)).astype(np.uint8)
