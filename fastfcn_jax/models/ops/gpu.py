"""Sums of two maps at once, which CPUs and GPUs are fast at in different forms."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sums(a: Float[Array, "*b c"], b: Float[Array, "*b c"]) -> Float[Array, "2 c"]:
    """Sums both over all axes but the last.

    A GPU takes one reduction of two operands, one loop of two sums. On a CPU that costs psp's
    training step 8 % of its processor time more than a sum of each.
    """
    axes = tuple(range(a.ndim - 1))
    zero = jnp.zeros((), a.dtype)
    return jax.lax.platform_dependent(
        a,
        b,
        cpu=lambda a, b: jnp.stack([a.sum(axes), b.sum(axes)]),
        default=lambda a, b: jnp.stack(
            jax.lax.reduce((a, b), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), axes)
        ),
    )
