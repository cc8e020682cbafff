"""Gradients written by hand against automatic ones: BatchNorm, resizing."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastfcn_jax.models.ops import batch_norm as norms
from fastfcn_jax.models.ops.bilinear import resize, resize_plain


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def value_and_gradients(form, weights, *arguments):
    def total(*arguments):
        result = form(*arguments)
        y = result[0] if isinstance(result, tuple) else result
        return (y.astype(jnp.float32) * weights).sum(), result

    which = tuple(range(len(arguments)))
    (_, result), gradients = jax.jit(jax.value_and_grad(total, which, has_aux=True))(*arguments)
    return result, gradients


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (6, 3), (2, 32, 4)])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_batch_norm(shape, mean):
    x = noise(*shape) * 2 + mean
    scale, bias = noise(shape[-1], seed=1), noise(shape[-1], seed=2)
    weights = noise(*shape, seed=3)
    fast = value_and_gradients(norms.normalize, weights, x, scale, bias)
    direct = value_and_gradients(norms.normalize_plain, weights, x, scale, bias)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), fast, direct)


def test_batch_norm_far_from_zero_keeps_its_variance():
    """E[x^2] - E[x]^2 in float32 would leave nothing of it."""
    x = noise(4, 16, 16, 2) + 3e3
    _, _, var = norms.normalize(x, jnp.ones(2), jnp.zeros(2))
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-4)


def test_batch_norm_over_replicas_is_that_of_the_whole_batch():
    x, weights = noise(4, 5, 6, 3), noise(4, 5, 6, 3, seed=3)
    scale, bias = noise(3, seed=1), noise(3, seed=2)
    (y, mean, var), whole = value_and_gradients(norms.normalize_plain, weights, x, scale, bias)

    def replica(x, weights):
        (y, mean, var), (of_x, *rest) = value_and_gradients(
            lambda *a: norms.normalize(*a, "batch"), weights, x, scale, bias
        )
        return y, mean, var, of_x, jax.lax.psum(rest, "batch")

    halves = [a.reshape(2, 2, *a.shape[1:]) for a in (x, weights)]
    got = jax.pmap(replica, axis_name="batch", out_axes=(0, None, None, 0, None))(*halves)
    expected = (y, mean, var, whole[0], list(whole[1:]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-4, atol=1e-5),
        got,
        expected,
    )


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_batch_norm_of_a_spread_batch_sends_vectors_only(platform, request):
    """Under `jit` XLA decides what devices send: for a pixel of one image its whole map."""
    if platform == "gpu":
        request.getfixturevalue("gpu_forms")
    mesh = Mesh(jax.devices()[:2], "batch")
    spread, same = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["batch"], []))

    def total(x, scale, bias):
        return (norms.normalize(x, scale, bias)[0] ** 3).sum()

    x = jax.device_put(noise(4, 5, 6, 32), spread)
    vectors = jax.device_put((jnp.ones(32), jnp.zeros(32)), same)
    program = jax.jit(jax.grad(total, (0, 1, 2))).lower(x, *vectors).compile().as_text()
    transfer = r"= (.*?) (?:all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\("
    sent = re.findall(r"f32\[([\d,]*)\]", " ".join(re.findall(transfer, program)))
    assert sent
    assert all(math.prod(map(int, shape.split(","))) <= 2 * 32 for shape in sent)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(8, 9), (3, 21), (5, 1), (40, 53)])
def test_resize_gradient_is_its_transpose(shape, align_corners):
    """<resize(x), g> = <x, gradient(g)>, for enlarging, shrinking and single columns."""
    x, g = noise(2, 5, 7, 3), noise(2, *shape, 3, seed=1)
    y, vjp = jax.vjp(lambda x: resize(x, shape, align_corners=align_corners), x)
    np.testing.assert_allclose((y * g).sum(), (x * vjp(g)[0]).sum(), rtol=1e-4)
    _, reference = jax.vjp(lambda x: resize_plain(x, shape, align_corners=align_corners), x)
    np.testing.assert_allclose(vjp(g)[0], reference(g)[0], atol=1e-5)
