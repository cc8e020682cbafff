"""The type that sums, statistics and coordinates are computed in, whatever a map is stored in."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def wide_type(x: jax.typing.ArrayLike | jax.ShapeDtypeStruct) -> jnp.dtype:
    """float32; float64 for float64, which the checks against the references compute in."""
    return jnp.promote_types(x.dtype, jnp.float32)


def widen(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x in its `wide_type`."""
    return x.astype(wide_type(x))
