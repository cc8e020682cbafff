"""The training step: devices, accumulation, averaging, clipping, freezing, non-finite values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from fastfcn_jax.training import optim, schedules, state, step, strategy

CLASSES, STEPS = 5, 5


def config(**model):
    c = tiny.get_config()
    c.model.update(dropout=0.0, **model)
    return c


def batches(size=4, count=STEPS, seed=0):
    """Generated batches whose images have different numbers of ignored pixels."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        labels = rng.integers(0, CLASSES, (size, 24, 32)).astype(np.uint8)
        labels[0] = 255
        labels[1, :12] = 255
        yield {
            "image": rng.integers(0, 256, (size, 24, 32, 3), np.uint8),
            "label": labels,
            "size": np.tile(np.array([24, 32], np.int32), (size, 1)),
        }


@functools.cache
def initial():
    model = tiny.build(config().model, CLASSES)
    return jax.tree.map(np.asarray, dict(model.init(jax.random.key(1), jnp.zeros((1, 24, 32, 3)))))


def optimizer(**kwargs):
    schedule = schedules.poly(lr=0.1, end_lr=1e-4, power=0.9, steps=STEPS)
    defaults = {"learning_rate": schedule, "momentum": 0.9, "weight_decay": 5e-4}
    return optim.sgd(initial(), **{**defaults, **kwargs})


@functools.cache
def compiled(plan, dtype, dropout, accumulate, optim_kwargs, kwargs):
    c = config(precision=dtype)
    c.model.dropout = dropout
    opt = optimizer(**dict(optim_kwargs))
    run = step.make_train_step(
        tiny.build(c.model, CLASSES, axis_name=strategy.AXIS),
        opt,
        num_classes=CLASSES,
        loss={},
        accumulate=accumulate,
        axis_name=strategy.AXIS,
        **dict(kwargs),
    )
    return opt, plan.compile(run)


def train(
    plan, data, *, seed=0, dtype="float32", dropout=0.0, accumulate=1, optim_kwargs=None, **kwargs
):
    """Runs one step per batch; returns the state on the host and the metrics of each step."""
    options = tuple((optim_kwargs or {}).items()), tuple(kwargs.items())
    opt, run = compiled(plan, dtype, dropout, accumulate, *options)
    now = plan.put_state(state.create(initial(), opt, ema=kwargs.get("ema_decay", 0) > 0))
    metrics = []
    for index, batch in enumerate(data):
        placed = plan.put_batch(batch, accumulate=accumulate)
        now, values = run(now, placed, step.numbers(opt, seed, index))
        metrics.append(jax.tree.map(float, strategy.to_host(values)))
    return strategy.to_host(now), metrics


def plan(name, devices):
    return strategy.Strategy(name, tuple(jax.devices()[:devices]))


def assert_close(left, right, rtol=1e-5):
    """Every array agrees within rtol times its largest value (at least 0.01)."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True
    ):
        scale = max(float(np.abs(a).max(initial=0)), 1e-2)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale, err_msg=str(path))


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["all_pixels", "valid_pixels", "valid_pixels_per_shard"])
def test_devices_and_strategies_agree(normalization):
    kwargs = {"normalization": normalization, "ema_decay": 0.9}
    runs = {
        (name, n): train(plan(name, n), batches(), **kwargs)
        for name, n in (("pmap", 1), ("pmap", 2), ("jit", 2))
    }
    if normalization == "valid_pixels_per_shard":  # differs with one shard
        assert runs["pmap", 1][1][0]["loss"] != pytest.approx(runs["pmap", 2][1][0]["loss"], 1e-3)
        del runs["pmap", 1]
    expected, metrics = runs.pop(next(iter(runs)))
    for found, values in runs.values():
        assert_close(expected, found)
        for a, b in zip(metrics, values, strict=True):
            assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.slow
def test_accumulation_equals_one_larger_batch():
    # BatchNorm is frozen, because its statistics depend on the micro-batches.
    kwargs = {"optim_kwargs": {"freeze": ("bn",)}, "normalization": "valid_pixels"}
    whole = list(batches(size=6))
    parts = [{k: x.reshape(3, 2, *x.shape[1:]) for k, x in b.items()} for b in whole]
    expected, metrics = train(plan("pmap", 1), whole, **kwargs)
    for name, devices in (("pmap", 2), ("jit", 2)):
        found, values = train(plan(name, devices), parts, accumulate=3, **kwargs)
        assert_close(expected, found)
        assert [m["loss"] for m in values] == pytest.approx([m["loss"] for m in metrics], rel=1e-5)


@pytest.mark.slow
def test_accumulation_per_micro_batch_averages_their_gradients():
    kwargs = {"optim_kwargs": {"freeze": ("bn",), "weight_decay": 0.0}}
    kwargs["normalization"] = "valid_pixels_per_micro_batch"
    (whole,) = batches(size=4, count=1)
    parts = {k: x.reshape(2, 2, *x.shape[1:]) for k, x in whole.items()}
    found, (values,) = train(plan("pmap", 2), [parts], accumulate=2, **kwargs)
    alone = [
        train(plan("pmap", 2), [{k: x[i] for k, x in parts.items()}], **kwargs) for i in (0, 1)
    ]
    assert values["loss"] == pytest.approx(sum(m["loss"] for _, (m,) in alone) / 2, rel=1e-5)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, alone[0][0].params, alone[1][0].params)
    assert_close(mean, found.params)  # the first step of SGD is the gradient


@pytest.mark.slow
def test_accumulation_carries_batch_statistics_through_the_micro_batches():
    (batch,) = batches(count=1)
    parts = {k: x.reshape(2, 2, *x.shape[1:]) for k, x in batch.items()}
    one = train(plan("pmap", 1), [{k: x[1] for k, x in parts.items()}])[0].batch_stats
    two = train(plan("pmap", 1), [parts], accumulate=2)[0].batch_stats
    start = initial()["batch_stats"]
    # After two updates of momentum 0.1 the initial value has weight 0.81, after one 0.9.
    first = train(plan("pmap", 1), [{k: x[0] for k, x in parts.items()}])[0].batch_stats
    expected = jax.tree.map(lambda a, b, s: 0.9 * a + (b - 0.9 * s), first, one, start)
    assert_close(expected, two)


@pytest.mark.slow
def test_dropout_differs_between_steps_and_replicas_and_repeats_by_seed():
    data = [next(iter(batches()))] * 2
    kwargs = {"dropout": 0.5, "optim_kwargs": {"learning_rate": lambda step: 0.0}}
    one, again = (train(plan("pmap", 1), data, **kwargs)[1] for _ in range(2))
    assert one == again
    assert one[0]["loss"] != one[1]["loss"]  # same weights (rate 0): only the dropout mask differs
    other = train(plan("pmap", 1), data, seed=1, **kwargs)[1]
    assert other[0]["loss"] != one[0]["loss"]
    same = {k: np.concatenate([x[:1]] * 2) for k, x in data[1].items()}
    same["label"][:] = 1
    replicated = train(plan("pmap", 2), [same], **kwargs)[1][0]["loss"]
    alone = train(plan("pmap", 1), [{k: x[:1] for k, x in same.items()}], **kwargs)[1][0]["loss"]
    assert replicated != pytest.approx(alone, rel=1e-6)  # equal images, different masks


@pytest.mark.slow
def test_moving_average_follows_the_weights():
    data = list(batches(count=3))
    seen = [initial()["params"]]
    for count in range(1, 4):
        seen.append(train(plan("pmap", 1), data[:count])[0].params)
    expected = seen[0]
    for params in seen[1:]:
        expected = jax.tree.map(lambda e, p: 0.8 * e + 0.2 * p, expected, params)
    found = train(plan("pmap", 1), data, ema_decay=0.8)[0]
    assert_close(expected, found.ema)
    assert found.variables["params"] is found.ema


def test_a_moving_average_that_warms_up_forgets_the_initial_weights():
    opt = optimizer()
    run = jax.jit(
        step.make_train_step(
            tiny.build(config().model, CLASSES),
            opt,
            num_classes=CLASSES,
            loss={},
            ema_decay=0.4,
            ema_warmup=True,
        )
    )
    now = state.create(initial(), opt, ema=True)
    expected = now.ema
    for index, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4)):
        now, _ = run(now, next(iter(batches())), step.numbers(opt, 0, index))
        expected = jax.tree.map(
            lambda e, p, decay=decay: decay * e + (1 - decay) * p, expected, now.params
        )
    assert_close(expected, now.ema)


def test_a_long_moving_average_settles_where_the_weights_are():
    # In float32, 0.9999 and 1 - 0.9999 do not sum to 1: as weights they would shrink the average.
    opt = optimizer()
    now = state.create(initial(), opt, ema=True)
    zero, zeros = jnp.float32(0.0), jax.tree.map(jnp.zeros_like, now.params)

    @jax.jit
    def many(now):
        def body(_, ema):
            args = (opt, zeros, zero, zero, now.batch_stats, 0.9999)
            return step._updated(dataclasses.replace(now, ema=ema), *args).ema

        return jax.lax.fori_loop(0, 50_000, body, now.ema)

    assert_close(now.params, many(now), rtol=1e-7)


@pytest.mark.slow
def test_clipping_bounds_the_gradient_as_torch_does():
    data = list(batches(count=1))
    free, metrics = train(plan("pmap", 1), data, optim_kwargs={"weight_decay": 0.0})
    norm = metrics[0]["grad_norm"]
    options = {"weight_decay": 0.0, "clip_norm": norm / 4}
    clipped, values = train(plan("pmap", 1), data, optim_kwargs=options)
    assert values[0]["grad_norm"] == norm  # the unclipped norm is logged
    trace = [optax.tree_utils.tree_get(s.opt_state, "trace") for s in (free, clipped)]
    assert_close(jax.tree.map(lambda g: g / 4, trace[0]), trace[1])


@pytest.mark.parametrize("freeze", ["backbone", "bn"])
def test_what_is_frozen_stays_as_initialised(freeze):
    found, _ = train(plan("pmap", 2), batches(), optim_kwargs={"freeze": (freeze,)})
    start = initial()
    np.testing.assert_equal(found.batch_stats, start["batch_stats"])
    backbone, before = found.params["backbone"], start["params"]["backbone"]
    np.testing.assert_equal(backbone["layer4_0_bn"], before["layer4_0_bn"])
    moved = np.abs(backbone["layer4_0_conv"]["kernel"] - before["layer4_0_conv"]["kernel"]).max()
    assert (moved == 0) == (freeze == "backbone")
    kernels = [p["decode_head"]["conv_seg"]["kernel"] for p in (found.params, start["params"])]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    opt = optimizer()
    model = tiny.build(config().model, CLASSES)
    run = jax.jit(step.make_train_step(model, opt, num_classes=CLASSES, loss={}, ema_decay=0.9))
    broken = jax.tree.map(np.copy, initial())
    broken["params"]["decode_head"]["conv_seg"]["bias"] = np.full(CLASSES, np.nan, np.float32)
    before = state.create(broken, opt, ema=True)
    after, metrics = run(before, next(iter(batches())), step.numbers(opt, 0, 0))
    assert not metrics["finite"]
    assert int(after.step) == 1
    unchanged = jax.tree.map(
        functools.partial(np.array_equal, equal_nan=True), after.replace(step=before.step), before
    )
    assert all(jax.tree.leaves(unchanged))


def test_another_schedule_or_seed_needs_no_other_program():
    """Compiling takes a minute for a large model; a search for a learning rate compiles once."""
    texts = set()
    for changes in ({}, {"lr": 0.3, "power": 2.0}, {"schedule": "cos", "warmup_steps": 3}):
        c = config()
        c.optim.update(changes)
        c.train.steps += len(changes)
        opt = optim.build(c, initial())
        run = step.make_train_step(tiny.build(c.model, CLASSES), opt, num_classes=CLASSES, loss={})
        given = step.numbers(opt, seed=len(changes), step=2)
        texts.add(
            jax.jit(run).lower(state.create(initial(), opt), next(iter(batches())), given).as_text()
        )
    assert len(texts) == 1


@pytest.mark.slow
def test_bfloat16_follows_float32():
    data = [b for _ in range(40) for b in batches()]
    schedule = {"learning_rate": lambda step: 0.02}
    wide, narrow = (
        np.array(
            [m["loss"] for m in train(plan("jit", 1), data, dtype=d, optim_kwargs=schedule)[1]]
        )
        for d in ("float32", "bfloat16")
    )
    assert wide[-5:].mean() < 0.98 * wide[:5].mean()  # the loss decreases
    assert np.abs(wide - narrow).max() < 0.01 * wide[0]
    assert np.abs(wide - narrow).max() > 0  # else bfloat16 was not used


@pytest.mark.slow
def test_state_buffers_are_reused():
    one = plan("pmap", 2)
    opt = optimizer()
    model = tiny.build(config().model, CLASSES, axis_name=strategy.AXIS)
    run = one.compile(
        step.make_train_step(model, opt, num_classes=CLASSES, loss={}, axis_name=strategy.AXIS)
    )
    before = one.put_state(state.create(initial(), opt))
    run(before, one.put_batch(next(iter(batches()))), step.numbers(opt, 0, 0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
