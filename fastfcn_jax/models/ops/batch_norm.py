"""Batch normalisation in training, in as few passes over the map as it takes.

Forward: one pass for both sums, one to normalise. Backward: one pass for both sums, one for the
input's gradient. jax's gradient of the plain form reads the map about twice as often, and memory
traffic, not arithmetic, is what normalisation costs.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.gpu import sums
from fastfcn_jax.models.ops.precision import widen

EPS = 1e-5

Result = tuple[Float[Array, "*b c"], Float[Array, " c"], Float[Array, " c"]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    axis_name: str | None = None,
) -> Result:
    """Returns (y, mean, biased variance) with statistics over all axes but the last.

    They are taken over the replicas of `axis_name` too, which hold equally many values; mean and
    variance carry no gradient. Sums in float32; y has x's type.
    """
    return _forward(x, scale, bias, axis_name)[0]


def _forward(x, scale, bias, axis_name):
    mean, var = _statistics(x, axis_name)
    rstd = jax.lax.rsqrt(var + EPS)
    y = ((widen(x) - mean) * (rstd * scale) + bias).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, rstd)


def _backward(axis_name, saved, cotangents):
    x, scale, mean, rstd = saved
    gradient = widen(cotangents[0])
    normal = (widen(x) - mean) * rstd
    both, count, replicas = _over_replicas(sums(gradient, gradient * normal), x, axis_name)
    of_x = (gradient - (both[0] + normal * both[1]) / count) * (scale * rstd)
    # The caller sums gradients over the replicas, and `both` is already such a sum: each replica
    # returns an equal share, for which its own sums need not be kept.
    of_bias, of_scale = both / replicas
    return of_x.astype(x.dtype), of_scale, of_bias


normalize.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def statistics(
    x: Float[Array, "*b c"], axis_name: str | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Returns the (mean, biased variance) that `normalize` takes, to be differentiated."""
    return _statistics(x, axis_name)


def _statistics_forward(x, axis_name):
    mean, var = _statistics(x, axis_name)
    return (mean, var), (x, mean)


def _statistics_backward(axis_name, saved, cotangents):
    x, mean = saved
    (of_mean, of_var), count, _ = _over_replicas(jnp.stack(cotangents), x, axis_name)
    return (((of_mean + 2.0 * of_var * (widen(x) - mean)) / count).astype(x.dtype),)


statistics.defvjp(_statistics_forward, _statistics_backward)


def _statistics(x, axis_name):
    wide = widen(x)
    # Sums around a value near the mean: E[x^2] - mean^2 around 0 would cancel. Sixteen pixels have
    # it, of all images alike: of one image, XLA would send its map to all devices under `jit`.
    pixels = wide.reshape(len(x), -1, x.shape[-1])
    step = -(-pixels.shape[1] // max(1, 16 // len(x)))
    near = pixels[:, step // 2 :: step].mean((0, 1))
    count = x.size // x.shape[-1]
    offset, square = sums(wide - near, jnp.square(wide - near)) / count
    mean, var = near + offset, square - jnp.square(offset)
    if axis_name is not None:
        both = jax.lax.all_gather(jnp.stack((mean, var)), axis_name)
        means, variances = both[:, 0], both[:, 1]
        mean = means.mean(0)
        var = (variances + jnp.square(means - mean)).mean(0)
    return mean, jnp.maximum(var, 0.0)


def _over_replicas(both, x, axis_name):
    """Returns (sums over all replicas, values of a channel on all of them, replicas).

    Both sums travel as one array: two would be copied into what is sent, and out of it.
    """
    replicas = 1
    if axis_name is not None:
        both, replicas = jax.lax.psum(both, axis_name), jax.lax.axis_size(axis_name)
    return both, x.size // x.shape[-1] * replicas, replicas


def normalize_plain(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    axis_name: str | None = None,
) -> Result:
    """The same by definition, with jax's gradient."""
    axes = tuple(range(x.ndim - 1))
    wide = widen(x)
    mean = wide.mean(axes)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    var = jnp.square(wide - mean).mean(axes)
    if axis_name is not None:
        var = jax.lax.pmean(var, axis_name)
    y = ((wide - mean) * (jax.lax.rsqrt(var + EPS) * scale) + bias).astype(x.dtype)
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)
