"""The type that sums, statistics and coordinates are computed in, whatever a map is stored in."""

import jax
import numpy as np
from jaxtyping import Array, Float, Num


def wide_type(x: Array | jax.ShapeDtypeStruct) -> np.dtype:
    """float32; float64 for float64, which the checks against the references compute in."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def widen(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x in its `wide_type`."""
    return x.astype(wide_type(x))
