"""The stem's max pooling; its gradient goes by selections along one axis after the other.

XLA's gradient of a windowed maximum is a scatter: on GPUs the order of its sums is random or, with
`train.deterministic`, it sorts them first.
"""

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


max_pool.defvjp(
    lambda x: (max_pool_plain(x), x), lambda x, gradient: jax.vjp(_selected, x)[1](gradient)
)
