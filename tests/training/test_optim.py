"""Schedules compared with mmengine's and the official code's, SGD with torch.optim.SGD."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from fastfcn_jax.config.base import get_config
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import optim, schedules

BASE = {"lr": 0.01, "end_lr": 1e-4, "power": 0.9}


def rates(steps, **kwargs):
    schedule = schedules.poly(steps=steps, **{**BASE, **kwargs})
    return np.array([schedule(jnp.int32(i)) for i in range(steps)])


def test_poly_is_mmengines_to_the_last_step():
    from mmengine.optim import PolyLR

    steps = 400
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = PolyLR(optimizer, eta_min=1e-4, power=0.9, begin=0, end=steps, by_epoch=False)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates(steps), expected, rtol=3e-7)
    assert rates(steps)[-1] == np.float32(1e-4)


@pytest.mark.parametrize("step", [0, 1, 40_000, 79_998, 79_999])
def test_poly_keeps_its_precision_at_the_end_of_a_long_schedule(step):
    rate = schedules.poly(steps=80_000, **BASE)(jnp.int32(step))
    expected = 1e-4 + (0.01 - 1e-4) * (1 - step / 79_999) ** 0.9
    assert float(rate) == pytest.approx(expected, rel=2e-7)


def test_official_poly_stops_one_short_of_zero():
    found = rates(100, end_lr=0.0, reaches_end=False)
    expected = [0.01 * (1 - i / 100) ** 0.9 for i in range(100)]  # utils/lr_scheduler.py, poly
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_warm_up_climbs_to_the_schedule_and_joins_it():
    plain, warm = rates(50), rates(50, warmup_steps=10)
    np.testing.assert_allclose(warm[:10], plain[:10] * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_array_equal(warm[10:], plain[10:])


def variables():
    rng = np.random.default_rng(0)
    leaf = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    bn = lambda: {"scale": leaf(3), "bias": leaf(3)}  # noqa: E731
    stats = {"mean": leaf(3), "var": leaf(3)}
    return {
        "params": {
            "backbone": {
                "stem_0": {"kernel": leaf(2, 3)},
                "stem_1": bn(),
                "layer1_0": {"bn1": bn()},
                "layer3_5": {"conv1": {"kernel": leaf(2, 3)}},
                "layer4_0": {"conv1": {"kernel": leaf(2, 3)}},
            },
            "decode_head": {"conv_seg": {"kernel": leaf(3, 4), "bias": leaf(4)}, "bn": bn()},
        },
        "batch_stats": {
            "backbone": {"stem_1": stats, "layer1_0": {"bn1": stats}},
            "decode_head": {"bn": stats},
        },
    }


def build(**kwargs):
    schedule = schedules.poly(steps=10, **BASE)
    defaults = {"learning_rate": schedule, "momentum": 0.9, "weight_decay": 5e-4}
    return optim.sgd(variables(), **{**defaults, **kwargs})


def test_sgd_is_torchs_with_decay_on_every_parameter():
    optimizer = build()
    params = variables()["params"]
    tensors = [torch.tensor(np.array(x), requires_grad=True) for x in jax.tree.leaves(params)]
    reference = torch.optim.SGD(tensors, lr=0.01, momentum=0.9, weight_decay=5e-4)
    opt_state = optimizer.transform.init(params)
    rng = np.random.default_rng(1)
    for step in range(5):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        rate = float(optimizer.learning_rate(jnp.int32(step)))
        reference.param_groups[0]["lr"] = rate
        for tensor, grad in zip(tensors, jax.tree.leaves(grads), strict=True):
            tensor.grad = torch.tensor(grad)
        reference.step()
        directions, opt_state = optimizer.transform.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, directions)
    for ours, theirs in zip(jax.tree.leaves(params), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-6, atol=1e-7)


def official_rate(mode, step, *, lr, epochs, per_epoch, lr_step):
    """The official LR_Scheduler, from the formulas of its docstring (encoding/utils)."""
    epoch, total = step // per_epoch, epochs * per_epoch
    if mode == "cos":
        return lr * 0.5 * (1 + math.cos(math.pi * step / total))
    if mode == "step":
        return lr * 0.1 ** (epoch // lr_step)
    return lr * (1 - step / total) ** 0.9


@pytest.mark.parametrize("mode", ["poly", "cos", "step"])
def test_schedules_are_the_official_ones_over_all_steps(mode):
    per_epoch, epochs, lr_step = 37, 30, 7
    config = get_config().optim
    config.update(lr=0.01, end_lr=0.0, poly_reaches_end=False, schedule=mode)
    config.step_every = per_epoch * lr_step
    steps = jnp.arange(epochs * per_epoch)
    rates = jax.jit(jax.vmap(schedules.build(config, len(steps))))(steps)
    kind = {"lr": 0.01, "epochs": epochs, "per_epoch": per_epoch, "lr_step": lr_step}
    expected = [official_rate(mode, int(step), **kind) for step in steps]
    np.testing.assert_allclose(rates, expected, rtol=2e-6)


def test_a_cosine_that_reaches_its_end_and_a_warm_up():
    config = get_config().optim
    config.update(lr=0.2, end_lr=0.01, schedule="cos", warmup_steps=4)
    rates = [float(schedules.build(config, 101)(jnp.int32(step))) for step in (0, 3, 50, 100)]
    start = 0.01 + 0.19 * (1 + math.cos(math.pi * 3 / 100)) / 2
    np.testing.assert_allclose(rates, [0.05, start, 0.105, 0.01], rtol=1e-6)


def test_a_step_schedule_without_its_interval():
    config = get_config().optim
    config.schedule = "step"
    with pytest.raises(UserError, match=r"needs config\.optim\.step_every"):
        schedules.build(config, 10)


def multipliers(**kwargs):
    leaves = jax.tree_util.tree_leaves_with_path(build(**kwargs).multipliers)
    return {"/".join(key.key for key in path): value for path, value in leaves}


def test_heads_learn_at_their_multiple_of_the_rate():
    found = multipliers(head_lr_multiplier=10.0)
    assert {v for k, v in found.items() if k.startswith("backbone")} == {1.0}
    assert {v for k, v in found.items() if k.startswith("decode_head")} == {10.0}


def test_layer_decay_falls_from_the_heads_to_the_stem():
    found = multipliers(layer_decay=0.5)
    assert found["decode_head/conv_seg/kernel"] == 1
    assert found["backbone/layer4_0/conv1/kernel"] == 0.5
    assert found["backbone/layer3_5/conv1/kernel"] == 0.25
    assert found["backbone/layer1_0/bn1/scale"] == 0.5**4
    assert found["backbone/stem_0/kernel"] == 0.5**5


@pytest.mark.parametrize(
    ("freeze", "kept"),
    [
        ((), []),
        (("bn",), ["bn", "stem_1"]),
        (("backbone",), ["backbone"]),
        (("backbone", "bn"), ["backbone", "bn"]),
    ],
)
def test_frozen_parameters_neither_move_nor_decay_nor_keep_momentum(freeze, kept):
    optimizer = build(freeze=freeze)
    params = variables()["params"]
    opt_state = optimizer.transform.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    directions, opt_state = optimizer.transform.update(zeros, opt_state, params)
    for path, direction in jax.tree_util.tree_leaves_with_path(directions):
        frozen = any(name in jax.tree_util.keystr(path) for name in kept)
        assert bool((direction == 0).all()) == frozen, path
    momenta = len(jax.tree.leaves(optax.tree_utils.tree_get(opt_state, "trace")))
    assert momenta == sum(bool((d != 0).any()) for d in jax.tree.leaves(directions))
