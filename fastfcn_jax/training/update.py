"""Combines operations on many small parameter arrays: every GPU kernel costs microseconds."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fastfcn_jax.models.ops.forms import Forms


def global_norm(grads: Any, forms: Forms) -> Float[Array, ""]:
    """L2 norm over all arrays: sums the squares of each row, then all rows in one reduction."""
    squares = [jnp.square(leaf) for leaf in jax.tree.leaves(grads)]
    rows = [x.sum(-1).ravel() if x.ndim > 1 else x for x in squares]
    # Without the barrier, XLA would reduce the rows of each array in a separate kernel.
    (rows,) = forms["barrier"](jnp.concatenate(rows))
    return jnp.sqrt(rows.sum())


def select(finite: Bool[Array, ""], new: Any, old: Any, forms: Forms) -> Any:
    """Returns the tree `new` if `finite`, else `old`.

    For vectors, the condition is broadcast to an array: XLA merges kernels of equal length that
    share an array operand, but not those that share a scalar.
    """
    longest = max(leaf.size for leaf in jax.tree.leaves(old) if leaf.ndim == 1)
    (many,) = forms["barrier"](jnp.broadcast_to(finite, longest))

    def choose(new, old):
        return jnp.where(many[: len(old)] if old.ndim == 1 else finite, new, old)

    return jax.tree.map(choose, new, old)
