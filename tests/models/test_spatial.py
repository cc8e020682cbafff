"""Resizing and pooling against PyTorch, alone and inside padded batches."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch

from fastfcn_jax.models import pooling
from fastfcn_jax.models.ops import max_pool
from fastfcn_jax.models.ops.bilinear import resize


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((64, 86), (512, 683)),
        ((64, 86), (47, 60)),  # never antialiased
        ((9, 13), (9, 40)),
        ((1, 1), (5, 7)),
        ((6, 6), (5, 5)),
        ((7, 9), (1, 1)),
        ((33, 40), (251, 333)),
    ],
)
def test_resize_is_torchs(size, shape, align_corners):
    x = noise(2, *size, 3)
    expected = torch.nn.functional.interpolate(
        oracle.to_torch(x), shape, mode="bilinear", align_corners=align_corners
    )
    ours = resize(jnp.asarray(x), shape, align_corners=align_corners)
    np.testing.assert_allclose(ours, oracle.to_numpy(expected), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [False, True])
def test_resize_follows_the_true_sizes_of_a_padded_batch(align_corners):
    x = noise(3, 12, 20, 2)
    in_size = np.array([[12, 20], [5, 20], [7, 3]], np.int32)
    out_size = np.array([[24, 40], [10, 33], [1, 6]], np.int32)
    ours = resize(
        jnp.asarray(x),
        (24, 40),
        align_corners=align_corners,
        in_size=jnp.asarray(in_size),
        out_size=jnp.asarray(out_size),
    )
    for i, ((h, w), (oh, ow)) in enumerate(zip(in_size, out_size, strict=True)):
        alone = resize(
            jnp.asarray(x[i : i + 1, :h, :w]), (int(oh), int(ow)), align_corners=align_corners
        )
        # Eagerly, a traced coordinate takes two roundings where a static one takes one.
        np.testing.assert_allclose(ours[i : i + 1, :oh, :ow], alone, atol=1e-5)


def test_resize_keeps_its_type_and_computes_in_float32():
    x = jnp.asarray(noise(1, 5, 5, 2), jnp.bfloat16)
    y = resize(x, (9, 9))
    assert y.dtype == jnp.bfloat16
    exact = resize(x.astype(jnp.float32), (9, 9))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("n", [1, 4, 5, 7, 13, 86, 128])
@pytest.mark.parametrize("s", [1, 2, 3, 6])
def test_adaptive_pooling_is_torchs(n, s):
    x = noise(1, n, n + 2, 3)
    expected = torch.nn.functional.adaptive_avg_pool2d(oracle.to_torch(x), s)
    (ours,) = pooling.pyramid_pool(jnp.asarray(x), (s,))
    np.testing.assert_allclose(ours, oracle.to_numpy(expected), atol=1e-6)


@pytest.mark.slow
def test_pyramid_pools_of_a_padded_batch():
    x = noise(3, 14, 9, 2)  # what lies outside the true sizes must not count
    size = np.array([[14, 9], [5, 9], [13, 2]], np.int32)
    pools = pooling.pyramid_pool(jnp.asarray(x), (1, 2, 3, 6), jnp.asarray(size))
    for i, (h, w) in enumerate(size):
        alone = pooling.pyramid_pool(jnp.asarray(x[i : i + 1, :h, :w]), (1, 2, 3, 6))
        for pool, expected in zip(pools, alone, strict=True):
            np.testing.assert_allclose(pool[i : i + 1], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 9), (7, 12), (1, 2)])
def test_max_pool_is_torchs(size):
    x = np.round(noise(2, *size, 3))  # few values, so that many tie
    theirs = oracle.to_torch(x).requires_grad_()
    expected = torch.nn.functional.max_pool2d(theirs, 3, 2, 1)
    weights = noise(*oracle.to_numpy(expected.detach()).shape)
    expected.backward(oracle.to_torch(weights))
    pooled, gradient = jax.vjp(max_pool.max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(pooled, oracle.to_numpy(expected.detach()))
    np.testing.assert_allclose(
        gradient(jnp.asarray(weights))[0], oracle.to_numpy(theirs.grad), atol=1e-6
    )
