"""The stem's max pooling, with the gradient of a maximum of nine strided slices.

On a CPU the windowed reduction is the faster forward pass and its own gradient (select and
scatter) by far the slower one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@jax.custom_vjp
def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Max-pools 3x3 with stride 2 and padding 1.

    Where two values of a window tie, the gradient is shared; behind a ReLU ties are zeros,
    whose gradient is 0 anyway.
    """
    return max_pool_direct(x)


def _backward(x, gradient):
    return jax.vjp(_max_of_slices, x)[1](gradient)


max_pool.defvjp(lambda x: (max_pool_direct(x), x), _backward)


def _max_of_slices(x):
    _, h, w, _ = x.shape
    rows, columns = (h + 1) // 2, (w + 1) // 2
    low = jnp.array(-jnp.inf, x.dtype)
    margins = ((0, 0, 0), (1, 2 * rows - h, 0), (1, 2 * columns - w, 0), (0, 0, 0))
    padded = jax.lax.pad(x, low, margins)
    slices = [
        padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
        for i in range(3)
        for j in range(3)
    ]
    return functools.reduce(jnp.maximum, slices)


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
