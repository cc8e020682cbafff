"""Single layers against PyTorch: convolutions, BatchNorm's statistics, GroupNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch

from fastfcn_jax.errors import UserError
from fastfcn_jax.models import layers
from fastfcn_jax.models.layers import Common
from fastfcn_jax.models.ops import batch_norm
from fastfcn_jax.models.ops.forms import FAST, Forms
from fastfcn_jax.models.ops.normalized import Normalized, convolve_normalized
from fastfcn_jax.models.ops.precision import widen
from fastfcn_jax.models.pooling import average_pairs


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [(8, 9), (7, 12), (3, 4)])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"),
    [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 4), (3, 2, 2), (7, 2, 1)],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_is_torchs(size, kernel_size, stride, dilation, groups):
    if groups > 1 and kernel_size != 3:
        pytest.skip("only the 3x3 of ResNeXt has groups")
    x, kernel = noise(2, *size, 6), noise(kernel_size, kernel_size, 6 // groups, 4, seed=1)
    expected = torch.nn.functional.conv2d(
        oracle.to_torch(x),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
    )
    ours = FAST.convolve(jnp.asarray(x), jnp.asarray(kernel), stride, dilation)
    np.testing.assert_allclose(ours, oracle.to_numpy(expected), atol=1e-5)


@pytest.mark.parametrize("size", [(8, 9), (7, 12), (3, 1), (5, 5)])
def test_average_of_pairs_is_torchs(size):
    x = noise(2, *size, 3)
    pool = torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    expected = oracle.to_numpy(pool(oracle.to_torch(x)))
    np.testing.assert_allclose(average_pairs(jnp.asarray(x)), expected, atol=1e-6)
    padded = np.full((2, 9, 14, 3), 100, np.float32)  # what stands in the padding is not read
    padded[:, : size[0], : size[1]] = x
    ours = average_pairs(jnp.asarray(padded), jnp.tile(jnp.array(size, jnp.int32), (2, 1)))
    np.testing.assert_allclose(
        ours[:, : expected.shape[1], : expected.shape[2]], expected, atol=1e-6
    )


# With a small spread around 30, E[x^2] - mean^2 would cancel; with a spread of 1, the running
# variance tells the unbiased variance from the biased one.
@pytest.mark.parametrize(("centre", "spread", "atol"), [(30, 0.01, 2e-2), (0, 1, 1e-5)])
def test_batch_norm_trains_like_torch(centre, spread, atol):
    reference = torch.nn.BatchNorm2d(4).train()
    ours = layers.BatchNorm(Common())
    variables = ours.init(jax.random.key(0), jnp.zeros((1, 1, 1, 4)))
    for step in range(3):
        x = centre + spread * noise(2, 3, 5, 4, seed=step)
        y, updates = ours.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
        expected = oracle.to_numpy(reference(oracle.to_torch(x)))
        np.testing.assert_allclose(y, expected, atol=atol)
        variables = {**variables, **updates}
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], reference.running_mean.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stats["var"], reference.running_var.numpy(), rtol=1e-5)
    x = noise(1, 2, 3, 4)
    expected = oracle.to_numpy(reference.eval()(oracle.to_torch(x)))
    np.testing.assert_allclose(ours.apply(variables, jnp.asarray(x)), expected, rtol=1e-4)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_statistics_are_exact_to_rounding(platform, request):
    """Around one pixel in place of sixteen the variance would be off by more than the bound."""
    if platform == "gpu":
        request.getfixturevalue("gpu_forms")
    x = 3 + 2 * noise(8, 16, 16, 64)
    exact = x.astype(np.float64)
    mean, var = map(np.asarray, batch_norm.statistics(jnp.asarray(x)))
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=3e-7)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=3e-7)


def test_synchronised_batch_norm_equals_one_device():
    x = noise(4, 3, 5, 4) * np.array([1, 2, 3, 4], np.float32)[:, None, None, None]
    local, synced = layers.BatchNorm(Common()), layers.BatchNorm(Common(axis_name="data"))
    variables = local.init(jax.random.key(0), jnp.zeros((1, 1, 1, 4)))

    def run(module, x):
        y, updates = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return y, updates["batch_stats"]

    def of_loss(x):
        return (run(local, x)[0] ** 3).sum()

    def of_shared_loss(x):
        return (run(synced, x)[0] ** 3).sum()

    y, stats = run(local, jnp.asarray(x))
    halves = jnp.asarray(x).reshape(2, 2, 3, 5, 4)
    shared, shared_stats = jax.pmap(lambda x: run(synced, x), axis_name="data")(halves)
    np.testing.assert_allclose(shared.reshape(y.shape), y, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(shared_stats[name][1], stats[name], rtol=1e-5)
    # Each replica's loss depends on the other's values: psum over the transpose brings them in.
    gradient = jax.pmap(jax.grad(of_shared_loss), axis_name="data")(halves)
    np.testing.assert_allclose(
        gradient.reshape(x.shape), jax.grad(of_loss)(jnp.asarray(x)), atol=1e-4
    )


def separable(x, *, train, variables=None, axis_name=None, forms=FAST):
    """(y, statistics, gradients of a random projection in parameters and x) of a JPU branch."""
    common = Common(axis_name=axis_name, forms=forms)
    module = layers.SeparableConv(6, common, dilation=2)

    def projected(params, x):
        every = {**variables, "params": params}
        y, updates = module.apply(every, x, train=train, mutable=["batch_stats"])
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum(), (y, updates)

    run = jax.value_and_grad(projected, (0, 1), has_aux=True)
    (_, (y, updates)), gradients = run(variables["params"], x)
    return y, updates["batch_stats"], gradients


def separable_variables():
    module = layers.SeparableConv(6, Common(), dilation=2)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 2, 2, 5)))
    rng = np.random.default_rng(4)  # factors, means and biases that are not 1 and 0
    return jax.tree.map(lambda v: v + rng.uniform(0.5, 1, v.shape).astype(np.float32), variables)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_separable_convolution_without_its_normalised_map(train):
    x, variables = jnp.asarray(noise(2, 7, 9, 5)), separable_variables()
    fast = separable(x, train=train, variables=variables)
    plain = separable(x, train=train, variables=variables, forms=Forms("plain"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), fast, plain)


def test_a_deferred_normalisation_loses_no_more_to_bfloat16_than_a_written_one():
    """Of maps away from zero: their mean is what the 1x1 takes in and gives back."""
    x, kernel = jnp.asarray(noise(2, 32, 32, 64) + 0.6), jnp.asarray(noise(1, 1, 64, 32, seed=1))
    scale, bias = jnp.asarray(noise(64, seed=2)), jnp.asarray(noise(64, seed=3))

    def behind_the_next_norm(y):
        return np.asarray(batch_norm.normalize(widen(y), jnp.ones(32), jnp.zeros(32))[0])

    def written(dtype):
        y, _, _ = batch_norm.normalize(x.astype(dtype), scale, bias)
        return behind_the_next_norm(FAST.convolve(y, kernel.astype(dtype)))

    def deferred(dtype):
        mean, var = batch_norm.statistics(x.astype(dtype))
        factor = jax.lax.rsqrt(var + batch_norm.EPS) * scale
        normalized = Normalized(x.astype(dtype), mean, factor, bias)
        return behind_the_next_norm(convolve_normalized(FAST, normalized, kernel))

    exact = written(jnp.float32)
    np.testing.assert_allclose(deferred(jnp.float32), exact, atol=1e-5)
    errors = [np.abs(form(jnp.bfloat16) - exact).mean() for form in (deferred, written)]
    assert errors[0] < 1.2 * errors[1]


@pytest.mark.slow
def test_separable_convolution_over_replicas_is_that_of_the_whole_batch():
    x, variables = jnp.asarray(noise(4, 7, 9, 5)), separable_variables()
    y, statistics, _ = separable(x, train=True, variables=variables)

    def projected(x, weights, axis_name=None):
        module = layers.SeparableConv(6, Common(axis_name=axis_name), dilation=2)
        y, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y * weights).sum()

    weights = jnp.asarray(noise(*y.shape, seed=1))
    halves, half_weights = (a.reshape(2, 2, *a.shape[1:]) for a in (x, weights))
    got = jax.pmap(
        lambda x: separable(x, train=True, variables=variables, axis_name="data")[:2],
        axis_name="data",
    )(halves)
    np.testing.assert_allclose(got[0].reshape(y.shape), y, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4), got[1], statistics)
    of_x = jax.pmap(
        jax.grad(lambda x, w: projected(x, w, "data")),
        axis_name="data",
    )(halves, half_weights)
    np.testing.assert_allclose(of_x.reshape(x.shape), jax.grad(projected)(x, weights), atol=1e-4)


def test_a_single_value_per_channel_is_refused():
    module = layers.BatchNorm(Common())
    x = jnp.ones((1, 1, 1, 4))
    variables = module.init(jax.random.key(0), x, train=True)
    with pytest.raises(UserError, match="batch_size"):
        module.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.slow
def test_group_norm_is_torchs_and_leaves_out_the_padding():
    reference = torch.nn.GroupNorm(32, 64)
    x = noise(2, 6, 7, 64) + 3
    size = np.array([[6, 7], [4, 3]], np.int32)
    module = layers.GroupNorm()
    variables = module.init(jax.random.key(0), jnp.asarray(x))
    ours = module.apply(variables, jnp.asarray(x), jnp.asarray(size))
    for i, (h, w) in enumerate(size):
        expected = oracle.to_numpy(reference(oracle.to_torch(x[i : i + 1, :h, :w])))
        np.testing.assert_allclose(ours[i : i + 1, :h, :w], expected, atol=1e-5)
