"""A 3x3 convolution with four ninths of the multiplications: Winograd's F(2x2, 3x3).

Along each axis two neighbouring outputs y and their four inputs d make

    y0 = d0 g0 + d1 g1 + d2 g2 = m0 + m1 + m2        m0 = (d0 - d2) g0
    y1 = d1 g0 + d2 g1 + d3 g2 = m1 - m2 - m3        m1 = (d1 + d2) (g0 + g1 + g2) / 2
                                                     m2 = (d2 - d1) (g0 - g1 + g2) / 2
                                                     m3 = (d1 - d3) g2

with four products where the taps g take six. Each product is of a sum of inputs and a `Mix` of the
taps; on both axes that is a matrix product over the channels for every pair of mixes, of all tiles
of the map at once. Only additions and halvings are new, so that float32 loses a bit or two at
most; 16-bit types would lose too much.

A dilated convolution is a plain one over each phase of the map. Where phases have one or two
pixels, or an odd number below `PADDED_FROM`, fewer products do than whole tiles would take.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv
1509.09308), section 4.1; the gradients are the transposes of the same three maps.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import jax.numpy as jnp
from jax.lax import slice_in_dim
from jaxtyping import Array, Float

from fastfcn_jax.models.ops import axis_phases
from fastfcn_jax.models.ops.taps import product

Mix = tuple[float, float, float]  # how much of each tap along an axis
ByMix = dict[Mix, Array]

FIRST, MIDDLE, LAST = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
SUM, DIFFERENCE = (0.5, 0.5, 0.5), (0.5, -0.5, 0.5)
TILE = FIRST, SUM, DIFFERENCE, LAST
BEFORE, AFTER = (1.0, -1.0, 0.0), (0.0, -1.0, 1.0)
# A phase of an odd number of pixels from here on is padded to whole tiles: that costs less than a
# tenth more than a pixel by its taps, which takes matrix products of its own.
PADDED_FROM = 9


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c k"], dilation: int = 1
) -> Float[Array, "b h w k"]:
    """Convolves at stride 1 with zero padding `dilation`."""
    return _convolve(x, kernel, dilation, 0)


def input_gradient(
    gradient: Float[Array, "b h w k"], kernel: Float[Array, "3 3 c k"], dilation: int = 1
) -> Float[Array, "b h w c"]:
    """The gradient of the input: a convolution with the kernel turned round."""
    return _convolve(gradient, kernel[::-1, ::-1], dilation, 1)


def kernel_gradient(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int = 3, dilation: int = 1
) -> Float[Array, "3 3 c k"]:
    """The gradient of the kernel; `size` has to be 3.

    x is cut into tiles and the gradient into their neighbourhoods. The other way round gives the
    same sums, but XLA would keep the forward pass's neighbourhoods of x until they are used.
    """
    outputs = _on_both_axes(x, dilation, _of_output)
    inputs = _on_both_axes(gradient, dilation, _of_input)
    rows = {
        of_rows: _to_taps({mix: _summed(v, inputs[of_rows][mix]) for mix, v in row.items()})
        for of_rows, row in outputs.items()
    }
    columns = [_to_taps({mix: taps[j] for mix, taps in rows.items()}) for j in range(3)]
    return jnp.stack([jnp.stack(row[::-1]) for row in zip(*columns, strict=True)][::-1])


def _convolve(x, kernel, dilation, axis):
    """Sums over the given axis of each tap."""
    _, h, w, _ = x.shape
    rows = {}
    for of_rows, row in _on_both_axes(x, dilation, _of_input).items():
        taps = [_mixed(of_rows, kernel[:, j]) for j in range(3)]
        products = {mix: product(v, _mixed(mix, taps), 3, axis, x.dtype) for mix, v in row.items()}
        rows[of_rows] = _to_output(products, 2, w, dilation)
    return _to_output(rows, 1, h, dilation)


def _on_both_axes(x, dilation, transform) -> dict[Mix, ByMix]:
    """Transforms the rows, then the columns of each result."""
    rows = _on_axis(x, 1, dilation, transform)
    return {mix: _on_axis(row, 2, dilation, transform) for mix, row in rows.items()}


def _on_axis(x: Array, axis: int, dilation: int, transform: Callable) -> ByMix:
    """Returns for each mix what it is multiplied by, in all phases, along this axis."""
    pieces = defaultdict(list)
    for phases in axis_phases.cut(x, axis, dilation):
        for mix, piece in transform(phases, axis):
            pieces[mix].append(axis_phases.merged(piece, axis))
    return {mix: jnp.concatenate(parts, axis) for mix, parts in pieces.items()}


def _of_input(x: Array, axis: int) -> Iterator[tuple[Mix, Array]]:
    pixels = x.shape[axis]
    if pixels == 1:
        yield MIDDLE, x
    elif pixels == 2:  # y0 = (x0 + x1) g1 + x1 (g2 - g1), y1 = (x0 + x1) g1 + x0 (g0 - g1)
        x0, x1 = _every(x, axis, 0, 1), _every(x, axis, 1, 1)
        yield from {MIDDLE: x0 + x1, AFTER: x1, BEFORE: x0}.items()
    else:
        tiles = _tiles(pixels)
        around = axis_phases.padded(x, axis, 1, max(2 * tiles + 1 - pixels, 0))
        d = [_every(around, axis, i, tiles) for i in range(4)]
        yield from zip(TILE, (d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]), strict=True)
        if 2 * tiles < pixels:
            yield FIRST, _every(x, axis, pixels - 2, 1)
            yield MIDDLE, _every(x, axis, pixels - 1, 1)


def _of_output(y: Array, axis: int) -> Iterator[tuple[Mix, Array]]:
    """The transpose of `_to_output`, for the phases of one length."""
    pixels = y.shape[axis]
    if pixels == 1:
        yield MIDDLE, y
    elif pixels == 2:
        y0, y1 = _every(y, axis, 0, 1), _every(y, axis, 1, 1)
        yield from {MIDDLE: y0 + y1, AFTER: y0, BEFORE: y1}.items()
    else:
        tiles = _tiles(pixels)
        whole = axis_phases.padded(y, axis, 0, max(2 * tiles - pixels, 0))
        y0, y1 = _every(whole, axis, 0, tiles), _every(whole, axis, 1, tiles)
        yield from zip(TILE, (y0, y0 + y1, y0 - y1, -y1), strict=True)
        if 2 * tiles < pixels:
            last = _every(y, axis, pixels - 1, 1)
            yield from {FIRST: last, MIDDLE: last}.items()


def _to_output(products: ByMix, axis: int, size: int, dilation: int) -> Array:
    """Adds up the products of each pixel of an axis, which lie in the order of `_on_axis`."""
    used = dict.fromkeys(products, 0)

    def take(mix, pixels):
        start, used[mix] = used[mix], used[mix] + pixels * phases
        part = slice_in_dim(products[mix], start, used[mix], axis=axis)
        return part.reshape(*part.shape[:axis], pixels, phases, *part.shape[axis + 1 :])

    parts = []
    for pixels, first, end in axis_phases.lengths(size, dilation):
        phases = end - first
        if pixels == 1:
            parts.append(take(MIDDLE, 1))
        elif pixels == 2:
            both = take(MIDDLE, 1)
            parts.append(jnp.concatenate([both + take(AFTER, 1), both + take(BEFORE, 1)], axis))
        else:
            tiles = _tiles(pixels)
            m = [take(mix, tiles) for mix in TILE]
            pairs = jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis + 1)
            part = axis_phases.merged(pairs, axis)
            if 2 * tiles < pixels:
                last = take(FIRST, 1) + take(MIDDLE, 1)
                part = jnp.concatenate([part, last], axis)
            parts.append(slice_in_dim(part, 0, pixels, axis=axis))
    return axis_phases.join(parts, axis, size)


def _tiles(pixels: int) -> int:
    return (pixels + 1) // 2 if pixels >= PADDED_FROM else pixels // 2


def _every(x: Array, axis: int, first: int, tiles: int) -> Array:
    """Returns every second pixel from the given one, for as many tiles."""
    return slice_in_dim(x, first, first + 2 * tiles - 1, 2, axis)


def _mixed(mix: Mix, taps: Iterable[Array]) -> Array:
    weighted = (w * tap for w, tap in zip(mix, taps, strict=True) if w)
    return functools.reduce(jnp.add, weighted)


def _to_taps(products: ByMix) -> list[Array]:
    """The transpose of `_mixed`: each tap's sum of the products of the mixes that it is in."""
    none = jnp.zeros_like(next(iter(products.values())))
    return [
        functools.reduce(jnp.add, [mix[j] * p for mix, p in products.items() if mix[j]] or [none])
        for j in range(3)
    ]


def _summed(v, w):
    """The matrix product of v and w over all pixels."""
    return product(v.reshape(-1, v.shape[-1]), w.reshape(-1, w.shape[-1]), 0, 0, v.dtype)
