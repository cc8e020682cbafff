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
    return np.array([schedule(i) for i in range(steps)])


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
    np.testing.assert_allclose(rates(steps), expected, rtol=1e-10)
    assert rates(steps)[-1] == 1e-4


@pytest.mark.parametrize("step", [0, 1, 40_000, 79_998, 79_999])
def test_poly_keeps_its_precision_at_the_end_of_a_long_schedule(step):
    rate = schedules.poly(steps=80_000, **BASE)(step)
    expected = 1e-4 + (0.01 - 1e-4) * (1 - step / 79_999) ** 0.9
    assert rate == pytest.approx(expected, rel=1e-10)


def test_official_poly_stops_one_short_of_zero():
    found = rates(100, end_lr=0.0, reaches_end=False)
    expected = [0.01 * (1 - i / 100) ** 0.9 for i in range(100)]  # utils/lr_scheduler.py, poly
    np.testing.assert_allclose(found, expected, rtol=1e-12)


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
        rate = float(optimizer.learning_rate(step))
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
    steps = range(epochs * per_epoch)
    schedule = schedules.build(config, len(steps))
    rates = [schedule(step) for step in steps]
    kind = {"lr": 0.01, "epochs": epochs, "per_epoch": per_epoch, "lr_step": lr_step}
    expected = [official_rate(mode, step, **kind) for step in steps]
    np.testing.assert_allclose(rates, expected, rtol=1e-10)


def test_a_cosine_that_reaches_its_end_and_a_warm_up():
    config = get_config().optim
    config.update(lr=0.2, end_lr=0.01, schedule="cos", warmup_steps=4)
    rates = [schedules.build(config, 101)(step) for step in (0, 3, 50, 100)]
    start = 0.01 + 0.19 * (1 + math.cos(math.pi * 3 / 100)) / 2
    np.testing.assert_allclose(rates, [0.05, start, 0.105, 0.01], rtol=1e-12)


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


def torch_steps(reference, tensors, params, optimizer, count=5):
    """Both optimisers on the same random gradients; returns our parameters."""
    opt_state = optimizer.transform.init(params)
    rng = np.random.default_rng(1)
    for step in range(count):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        rate = float(optimizer.learning_rate(step))
        for group in reference.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        for tensor, grad in zip(tensors, jax.tree.leaves(grads), strict=True):
            tensor.grad = torch.tensor(grad)
        reference.step()
        directions, opt_state = optimizer.transform.update(grads, opt_state, params)
        params = jax.tree.map(
            lambda p, d, m, rate=rate: p - rate * m * d, params, directions, optimizer.multipliers
        )
    return params


def configured(**changes):
    c = get_config()
    c.train.steps = 10
    c.optim.update(**changes)
    return optim.build(c, variables())


def assert_torchs(reference, tensors, optimizer):
    ours = torch_steps(reference, tensors, variables()["params"], optimizer)
    for p, tensor in zip(jax.tree.leaves(ours), tensors, strict=True):
        np.testing.assert_allclose(p, tensor.detach(), rtol=2e-6, atol=2e-6)


def tensors_of_params():
    leaves = jax.tree.leaves(variables()["params"])
    return [torch.tensor(np.array(x), requires_grad=True) for x in leaves]


def test_the_default_is_optaxs_chain_to_the_last_bit():
    """With the same tree of state, so that checkpoints of earlier versions resume."""
    optimizer, params = configured(), variables()["params"]
    chain = optax.chain(optax.add_decayed_weights(5e-4), optax.trace(0.9))
    plain = optax.masked(chain, jax.tree.map(lambda _: True, params))
    states = [t.init(params) for t in (optimizer.transform, plain)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    rng = np.random.default_rng(2)
    for _ in range(3):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        found = [
            jax.jit(t.update)(grads, s, params)
            for t, s in zip((optimizer.transform, plain), states, strict=True)
        ]
        states = [state for _, state in found]
        for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_nesterovs_momentum_is_torchs():
    tensors = tensors_of_params()
    reference = torch.optim.SGD(tensors, lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    assert_torchs(reference, tensors, configured(nesterov=True))


def test_adamw_is_torchs():
    tensors = tensors_of_params()
    reference = torch.optim.AdamW(tensors, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.05)
    optimizer = configured(name="adamw", betas=(0.8, 0.99), eps=1e-6, weight_decay=0.05)
    assert_torchs(reference, tensors, optimizer)


def lamb_step(p, g, m, v, step, decay, rate):
    """One step of LAMB from algorithm 2 of the paper, with phi the identity and bias correction."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    r = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + decay * p
    weight, update = np.linalg.norm(p), np.linalg.norm(r)
    trust = weight / update if weight > 0 and update > 0 else 1.0
    return p - rate * trust * r, m, v


def test_lamb_is_that_of_the_paper():
    optimizer = configured(name="lamb", weight_decay=0.01)
    params = variables()["params"]
    expected = [np.asarray(p, np.float64) for p in jax.tree.leaves(params)]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in expected]
    opt_state = optimizer.transform.init(params)
    rng = np.random.default_rng(1)
    for step in range(3):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        rate = float(optimizer.learning_rate(step))
        directions, opt_state = optimizer.transform.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, directions)
        for k, g in enumerate(jax.tree.leaves(grads)):
            expected[k], *moments[k] = lamb_step(
                expected[k], g.astype(np.float64), *moments[k], step + 1, 0.01, rate
            )
    for ours, theirs in zip(jax.tree.leaves(params), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_weight_decay_without_norms_and_biases_is_mmengines():
    """mmengine's rule: norm_decay_mult=0, bias_decay_mult=0; the Encoding layer's scale decays."""
    params = jax.tree.map(jnp.ones_like, variables()["params"])
    params["decode_head"]["encoding_0"] = {"codewords": jnp.ones(3), "scale": jnp.ones(3)}
    c = get_config()
    c.optim.update(weight_decay=0.5, decay_norms=False)
    optimizer = optim.build(c, {**variables(), "params": params})
    zeros = jax.tree.map(jnp.zeros_like, params)
    directions, _ = optimizer.transform.update(zeros, optimizer.transform.init(params), params)
    for path, direction in jax.tree_util.tree_leaves_with_path(directions):
        *_, module, leaf = (key.key for key in path)
        norm = leaf == "scale" and not module.startswith("encoding")
        expected = 0.0 if norm or leaf == "bias" else 0.5
        np.testing.assert_array_equal(direction, np.full_like(direction, expected), str(path))


def test_groups_change_rate_and_decay_of_what_they_name():
    groups = ("backbone/stem_* lr=0 decay=0", "backbone/* lr=0.1", "*/conv_seg/bias decay=2")
    optimizer = configured(groups=groups, head_lr_multiplier=10.0, weight_decay=0.5, momentum=0.0)
    params = jax.tree.map(jnp.ones_like, variables()["params"])
    zeros = jax.tree.map(jnp.zeros_like, params)
    directions, _ = optimizer.transform.update(zeros, optimizer.transform.init(params), params)
    both = jax.tree.map(lambda m, d: (m, float(d.ravel()[0])), optimizer.multipliers, directions)
    leaves = jax.tree_util.tree_leaves_with_path(both, is_leaf=lambda x: isinstance(x, tuple))
    found = {"/".join(key.key for key in path): value for path, value in leaves}
    assert found["backbone/stem_0/kernel"] == (0.0, 0.0)
    assert found["backbone/layer4_0/conv1/kernel"] == (0.1, 0.5)
    assert found["decode_head/conv_seg/kernel"] == (10.0, 0.5)
    assert found["decode_head/conv_seg/bias"] == (10.0, 1.0)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("backbon/* lr=0.1", "matches no parameter"),
        ("backbone/*", "is not 'PATTERN"),
        ("backbone/* lr", "is not 'PATTERN"),
        ("backbone/* rate=2", "is not 'PATTERN"),
        ("backbone/* lr=-1", "is not 'PATTERN"),
        ("", "is not 'PATTERN"),
    ],
)
def test_a_group_that_cannot_be_meant(entry, words):
    with pytest.raises(UserError, match=words):
        configured(groups=(entry,))


@pytest.mark.parametrize("peak", [0.3, 0.5])
def test_one_cycle_is_torchs(peak):
    steps = 200
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=steps, pct_start=peak, cycle_momentum=False,
        div_factor=25, final_div_factor=1e4,
    )  # fmt: skip
    expected = []
    for step in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    o = get_config().optim
    o.update(schedule="one_cycle", lr=0.1, end_lr=0.1 / 25 / 1e4, cycle_peak=peak)
    schedule = schedules.build(o, steps)
    np.testing.assert_allclose([schedule(i) for i in range(steps)], expected, rtol=1e-10)
