"""Batch normalisation in training, both statistics taken in one pass over the map."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import widen

EPS = 1e-5

Result = tuple[Float[Array, "*b c"], Float[Array, " c"], Float[Array, " c"]]


def normalize(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    axis_name: str | None = None,
) -> Result:
    """Returns (y, mean, biased variance) with statistics over all axes but the last.

    They are taken over the replicas of `axis_name` too, which hold equally many values. Sums in
    float32; y has x's type.
    """
    mean, var = statistics(x, axis_name)
    y = (widen(x) - mean) * (jax.lax.rsqrt(var + EPS) * scale) + bias
    return y.astype(x.dtype), mean, var


def statistics(
    x: Float[Array, "*b c"], axis_name: str | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Returns (mean, biased variance) over all axes but the last, and over all replicas."""
    wide = widen(x)
    axes = tuple(range(x.ndim - 1))
    # Sums around a value near the mean: E[x^2] - mean^2 around 0 would cancel. Sixteen pixels have
    # it, of all images alike: of one image, XLA would send its map to all devices under `jit`.
    pixels = wide.reshape(len(x), -1, x.shape[-1])
    step = -(-pixels.shape[1] // max(1, 16 // len(x)))
    near = jax.lax.stop_gradient(pixels[:, step // 2 :: step].mean((0, 1)))
    offset, square = (wide - near).mean(axes), jnp.square(wide - near).mean(axes)
    mean, var = near + offset, square - jnp.square(offset)
    if axis_name is not None:
        both = jax.lax.all_gather(jnp.stack((mean, var)), axis_name)
        means, variances = both[:, 0], both[:, 1]
        mean = means.mean(0)
        var = (variances + jnp.square(means - mean)).mean(0)
    return mean, jnp.maximum(var, 0.0)


def normalize_plain(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    axis_name: str | None = None,
) -> Result:
    """The same by definition: the mean first, then the variance around it."""
    axes = tuple(range(x.ndim - 1))
    wide = widen(x)
    mean = wide.mean(axes)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    var = jnp.square(wide - mean).mean(axes)
    if axis_name is not None:
        var = jax.lax.pmean(var, axis_name)
    y = (wide - mean) * (jax.lax.rsqrt(var + EPS) * scale) + bias
    return y.astype(x.dtype), mean, var
