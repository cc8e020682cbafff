"""The update's many small arrays in few kernels: each kernel costs a GPU some microseconds."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fastfcn_jax.models.ops.forms import Forms


def global_norm(grads: Any, forms: Forms) -> Float[Array, ""]:
    """Root of the sum of all squares: rows of each array first, then all rows in one sum."""
    squares = [jnp.square(leaf) for leaf in jax.tree.leaves(grads)]
    rows = [x.sum(-1).ravel() if x.ndim > 1 else x for x in squares]
    # Behind a barrier, or XLA sums each array's rows in a kernel of its own.
    (rows,) = forms["barrier"](jnp.concatenate(rows))
    return jnp.sqrt(rows.sum())


def select(finite: Bool[Array, ""], new: Any, old: Any, forms: Forms) -> Any:
    """Returns the tree `new` if `finite`, else `old`.

    Vectors read it from one array of many: XLA merges kernels of equal length that share an
    operand, but for scalars.
    """
    longest = max(leaf.size for leaf in jax.tree.leaves(old) if leaf.ndim == 1)
    (many,) = forms["barrier"](jnp.broadcast_to(finite, longest))

    def choose(new, old):
        return jnp.where(many[: len(old)] if old.ndim == 1 else finite, new, old)

    return jax.tree.map(choose, new, old)
