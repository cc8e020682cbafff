"""An axis of a map cut into its phases, every `dilation`-th pixel from each start, and back.

A dilated convolution never mixes phases. 64 pixels at dilation 12 have four phases of six pixels
and eight of five; those of one length are kept together, as the axes (pixels, phases).
"""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jax.lax import slice_in_dim
from jaxtyping import Array, Float


def lengths(size: int, dilation: int) -> list[tuple[int, int, int]]:
    """Returns (pixels, first phase, end) of the longer phases and of the shorter ones."""
    pixels, longer = divmod(size, dilation)
    groups = (pixels + 1, 0, longer), (pixels, longer, dilation)
    return [group for group in groups if group[0] > 0 and group[1] < group[2]]


def cut(
    x: Float[Array, "b h w c"], axis: int, dilation: int
) -> Iterator[Float[Array, "_ _ _ _ _"]]:
    """Yields the phases of each length: x with the axes (pixels, phases) in place of `axis`."""
    size = x.shape[axis]
    for pixels, first, end in lengths(size, dilation):
        whole = pixels * dilation
        y = slice_in_dim(x, 0, min(whole, size), axis=axis)
        y = padded(y, axis, 0, whole - y.shape[axis])
        y = y.reshape(*x.shape[:axis], pixels, dilation, *x.shape[axis + 1 :])
        yield slice_in_dim(y, first, end, axis=axis + 1)


def join(parts: Sequence[Float[Array, "_ _ _ _ _"]], axis: int, size: int) -> Array:
    """The inverse of `cut`, for an axis of `size` pixels."""
    longest = max(part.shape[axis] for part in parts)
    y = jnp.concatenate(
        [padded(part, axis, 0, longest - part.shape[axis]) for part in parts], axis + 1
    )
    return slice_in_dim(merged(y, axis), 0, size, axis=axis)


def merged(x: Array, axis: int) -> Array:
    """Returns x with `axis` and the next as one."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def padded(x: Array, axis: int, before: int, after: int) -> Array:
    """Returns x with that many zeros before and after it on one axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = before, after
    return jnp.pad(x, widths)
