"""The stem's max pooling, with the gradient of a maximum over rows of maxima over columns.

On a CPU the windowed reduction is the faster forward pass and its own gradient (select and
scatter) by far the slower one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ROWS, COLUMNS = 1, 2


@jax.custom_vjp
def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Max-pools 3x3 with stride 2 and padding 1.

    Where values of a window tie, the gradient is the first one's, row by row, as in PyTorch.
    """
    return max_pool_direct(x)


def _forward(x):
    y = max_pool_direct(x)
    return y, (x, y)


def _backward(residuals, gradient):
    x, y = residuals
    left, centre, right = _windows(x, COLUMNS)
    maxima = jnp.maximum(jnp.maximum(left, centre), right)
    return (_gradient(x, maxima, _gradient(maxima, y, gradient, ROWS), COLUMNS),)


max_pool.defvjp(_forward, _backward)


def _windows(x: Array, axis: int) -> list[Array]:
    """First, second and third value of every window along an axis; -inf beyond the border."""
    count = (x.shape[axis] + 1) // 2
    low = jnp.array(-jnp.inf, x.dtype)
    padded = jax.lax.pad(x, low, _margins(x.ndim, axis, 1, 2 * count - x.shape[axis]))
    return [
        jax.lax.slice_in_dim(padded, start, start + 2 * count - 1, 2, axis) for start in range(3)
    ]


def _gradient(x: Array, maxima: Array, gradient: Array, axis: int) -> Array:
    """Hands the gradient of the windows' maxima along an axis to the first value that is it."""
    first, second, _ = (value == maxima for value in _windows(x, axis))
    zero = jnp.zeros((), gradient.dtype)
    to_first = jnp.where(first, gradient, zero)
    to_second = jnp.where(second & ~first, gradient, zero)
    to_third = jnp.where(first | second, zero, gradient)
    # A window's second value has an even place; its third is the next window's first.
    count = gradient.shape[axis]
    following = jax.lax.slice_in_dim(to_first, 1, count, axis=axis)
    following = jax.lax.pad(following, zero, _margins(x.ndim, axis, 0, 1))
    both = jnp.stack([to_second, to_third + following], axis + 1)
    flat = both.reshape(*x.shape[:axis], 2 * count, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(flat, 0, x.shape[axis], axis=axis)


def _margins(ndim: int, axis: int, before: int, after: int) -> list[tuple[int, int, int]]:
    return [(before, after, 0) if i == axis else (0, 0, 0) for i in range(ndim)]


def max_pool_direct(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The same as a windowed reduction."""
    return jax.lax.reduce_window(
        x,
        -np.inf,  # a literal: jax differentiates the reduction only where it sees the identity
        jax.lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )
