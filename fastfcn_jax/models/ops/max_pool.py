"""The stem's max pooling, and its gradient in a form for CPUs and in one for GPUs.

XLA's gradient of a windowed maximum is a scatter: on GPUs the order of its sums is random or, with
`train.deterministic`, it sorts them first.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def max_pool_plain(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Max-pools 3x3 with stride 2 and padding 1.

    Where values of a window tie, the gradient is the first one's, row by row, as in PyTorch.
    """
    return jax.lax.reduce_window(
        x,
        -np.inf,  # a literal: jax differentiates the reduction only where it sees the identity
        jax.lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )


max_pool = jax.custom_vjp(max_pool_plain)


def _selected(x):
    """The same maxima by `where`, whose gradient in a tie is the first value's."""
    for axis in (2, 1):
        count = (x.shape[axis] + 1) // 2
        margins = [(0, 0, 0)] * 4
        margins[axis] = (1, 2 * count - x.shape[axis], 0)
        padded = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), margins)
        first, second, third = (
            jax.lax.slice_in_dim(padded, i, i + 2 * count - 1, 2, axis) for i in range(3)
        )
        x = jnp.where(first >= second, first, second)
        x = jnp.where(x >= third, x, third)
    return x


def by_selections(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The gradient of x, along one axis after the other."""
    return jax.vjp(_selected, x)[1](gradient)[0]


def by_phases(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """The same for even and odd rows and columns apart, from the place of each window's maximum.

    Whatever is read at an offset is written down with its padding first: kernels for GPUs that ask
    at every tap whether it is inside have three times the lower bound.
    """
    b, h, w, c = x.shape
    _, h2, w2, _ = gradient.shape
    padded = jax.lax.optimization_barrier(
        jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    )
    largest, place = padded[:, : 2 * h2 : 2, : 2 * w2 : 2], jnp.zeros(gradient.shape, jnp.int8)
    for tap in range(1, 9):
        row, column = divmod(tap, 3)
        value = padded[:, row : row + 2 * h2 - 1 : 2, column : column + 2 * w2 - 1 : 2]
        larger = value > largest  # not where they are equal: the first one's
        largest, place = jnp.where(larger, value, largest), jnp.where(larger, tap, place)
    margins = ((0, 0), (0, 1), (0, 1), (0, 0))
    place, gradient = jax.lax.optimization_barrier(
        (jnp.pad(place.astype(jnp.int8), margins), jnp.pad(gradient, margins))
    )

    def of_windows(*taps):
        """Sums over the windows that have the pixel as one of these taps, from the last one."""
        parts = []
        for tap in taps:
            # The windows below and on the right have it as a tap of their first row or column.
            down, right = int(tap < 3), int(tap % 3 == 0)
            windows = (slice(None), slice(down, down + h2), slice(right, right + w2))
            parts.append(jnp.where(place[windows] == tap, gradient[windows], 0))
        return functools.reduce(jnp.add, parts)

    even = jnp.stack((of_windows(4), of_windows(5, 3)), 3)
    odd = jnp.stack((of_windows(7, 1), of_windows(8, 6, 2, 0)), 3)
    return jnp.stack((even, odd), 2).reshape(b, 2 * h2, 2 * w2, c)[:, :h, :w]


def _backward(x, gradient):
    return (jax.lax.platform_dependent(x, gradient, cpu=by_selections, default=by_phases),)


max_pool.defvjp(lambda x: (max_pool_plain(x), x), _backward)
