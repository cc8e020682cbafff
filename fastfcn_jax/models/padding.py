"""Images of several sizes in one padded batch: the true sizes of their maps, and blank borders.

`size` is everywhere the true (height, width) of each image's map within a padded array, or
None where the whole array is the map. It may be traced, so one compiled program serves images
of many sizes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Size = Int[Array, "b 2"]


def at_stride(size: Size | None, stride: int) -> Size | None:
    """Returns the true sizes of maps after down-sampling by `stride` (a power of two)."""
    return None if size is None else -(-size // stride)


def inside(size: Size, height: int, width: int) -> Bool[Array, "b h w 1"]:
    """Returns where a padded (height, width) map shows its image."""
    rows = jnp.arange(height)[None, :] < size[:, :1]
    columns = jnp.arange(width)[None, :] < size[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def blank_outside(x: Float[Array, "b h w c"], size: Size | None) -> Float[Array, "b h w c"]:
    """Sets what lies beyond each image's true size to 0, as zero padding would have it."""
    if size is None:
        return x
    return jnp.where(inside(size, x.shape[1], x.shape[2]), x, jnp.zeros((), x.dtype))
