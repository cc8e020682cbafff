"""A convolution over a map and pooled grids side by side, as `models.ops.pyramid_conv` does it.

The grids are never resized to the whole map: their few positions are multiplied by every tap's
matrix, and constant operators of the row and of the column spread the products.
"""

from typing import NamedTuple

import numpy as np

from fastfcn_jax.export.onnx_operators import Graph, Size
from fastfcn_jax.models.ops.pyramid_conv import tap_weights


class Grid(NamedTuple):
    """A pooled map (b, channels, scale, scale) that covers the whole of the full one."""

    values: str
    scale: int
    channels: int


def module(
    graph: Graph, x: str, grids: list[Grid], path: str, size: Size, *, grids_first: bool = False
) -> str:
    """`Graph.module` of the full map x and, beside it, of the grids upsampled to its `size`.

    grids_first: the grids' channels come before those of x, not behind them.
    """
    if isinstance(size, str):  # the operators would depend on the size
        maps = [graph.resize(grid.values, size) for grid in grids]
        return graph.module(graph.concat([*maps, x] if grids_first else [x, *maps]), path)
    kernel = np.asarray(graph.weights[f"{path}/conv/kernel"])
    pooled = sum(grid.channels for grid in grids)
    own = slice(pooled, None) if grids_first else slice(0, -pooled)
    of_grids = kernel[:, :, :pooled] if grids_first else kernel[:, :, -pooled:]
    others = _spread(graph, grids, of_grids, size)
    return graph.module(x, path, channels=own, others=others)


def _spread(graph: Graph, grids: list[Grid], kernel: np.ndarray, size: tuple[int, int]) -> str:
    """The convolution of all grids, upsampled to `size`, with their part of the kernel."""
    ends = np.cumsum([grid.channels for grid in grids])
    by_row, columns = [], []
    for grid, part in zip(grids, np.split(kernel, ends[:-1], axis=2), strict=True):
        products = graph.tap_products(grid.values, part)
        rows, across = (
            _operator(length, grid.scale, taps, graph.align_corners)
            for length, taps in zip(size, kernel.shape[:2], strict=True)
        )
        by_row.append(graph.add("MatMul", [graph.constant(rows), products]))
        columns.append(across)
    joint = graph.add("Concat", by_row, axis=3)
    return graph.add("MatMul", [joint, graph.constant(np.concatenate(columns, axis=1).T)])


def _operator(length: int, scale: int, taps: int, align_corners: bool) -> np.ndarray:
    """Weights (length, scale * taps) of every (position, tap) along one axis."""
    weights = np.asarray(tap_weights(length, scale, taps, None, align_corners, np.float32))
    return weights.reshape(length, taps, scale).swapaxes(1, 2).reshape(length, scale * taps)
