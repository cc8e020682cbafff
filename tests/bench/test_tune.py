"""`fastfcn bench --tune`: what is recorded, timed, chosen, and kept for this kind of device."""

import collections
import functools
import json

import jax
import jax.numpy as jnp
import narrow
import numpy as np
import pytest

from fastfcn_jax import measured_forms, models
from fastfcn_jax.bench import tune
from fastfcn_jax.bench.__main__ import COMMAND
from fastfcn_jax.config import experiment, schema
from fastfcn_jax.errors import UserError
from fastfcn_jax.models.jpu import JPU
from fastfcn_jax.models.layers import Common
from fastfcn_jax.models.ops.forms import FAST, TABLE, Forms


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder in which nothing was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    return tmp_path / "cache" / "fastfcn_jax"


def by_operation(calls):
    found = collections.defaultdict(list)
    for call, count in calls.items():
        found[call.operation].append((call, count))
    return found


def test_a_training_step_is_recorded_with_shapes_and_counts():
    config = narrow.config()
    config.model.precision = "bfloat16"
    calls = by_operation(tune.recorded(config))
    assert set(calls) == {
        *("1x1", "3x3", "far dilated 3x3", "depthwise 3x3"),
        *("pyramid", "batch norm", "max pool", "resize"),
    }
    dilations = [call.leaves[-1] for call, _ in calls["depthwise 3x3"]]
    assert sorted(dilations) == [1, 2, 4, 8]
    ((pool, once),) = calls["max pool"]
    assert (pool.leaves[0].shape, once) == ((2, 32, 32, 8), 1)
    # The JPU's four pointwise convolutions have one shape.
    assert (2, 8, 8, 24) in [call.leaves[0].shape for call, count in calls["1x1"] if count == 4]
    enlarged = [call.leaves[0].shape for call, _ in calls["resize"] if call.leaves[1] == 64]
    assert enlarged == [(2, 8, 8, 9), (2, 4, 4, 9)]  # both heads, in the loss
    assert all(call.leaves[0].dtype == jnp.bfloat16 for call, _ in calls["1x1"])


def call(operation, *arguments):
    leaves, structure = jax.tree.flatten((arguments, {}))
    return tune.Call(operation, tuple(leaves), structure)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def convolution(operation, kernel, dilation=1, size=6):
    return call(operation, shape(1, size, size, kernel[2]), shape(*kernel), 1, dilation)


def test_plain_is_taken_from_three_per_cent_over_all_calls_of_a_step():
    calls = {
        convolution("1x1", (1, 1, 4, 4)): 3,
        convolution("1x1", (1, 1, 4, 8)): 1,
        convolution("3x3", (3, 3, 4, 4)): 1,
        call("max pool", shape(1, 8, 8, 4)): 2,
        call("resize", shape(1, 4, 4, 3), (8, 8)): 1,
    }
    # Fast, plain, and plain in a round that something else disturbed.
    seconds = iter([(1, 0.9, 0.9), (1, 1.2, 1.2), (1, 0.98, 0.98), (2, 1, 1), (2, 1, 2.1)])

    def timer(functions, rounds):
        assert (list(functions), rounds) == (["fast", "plain"], 3)
        fast, plain, disturbed = next(seconds)
        return {"fast": [fast, 9.0, fast], "plain": [plain, plain, disturbed]}

    found = tune.timed(calls, 3, timer)
    assert found["1x1"] == pytest.approx((4, 4.0, 3 * 0.9 + 1.2, True))  # 0.975
    assert found["max pool"] == pytest.approx((2, 4.0, 2.0, True))
    assert found["resize"] == pytest.approx((1, 2.0, 1.0, False))
    assert [name for name, row in found.items() if row.taken == "plain"] == ["max pool"]
    assert tune.Times(1, 1.0, 0.97, True).taken == "plain"


@pytest.mark.parametrize(
    "timed",
    [
        convolution("1x1", (1, 1, 4, 4)),
        convolution("far dilated 3x3", (3, 3, 4, 4), 4),
        call("max pool", shape(1, 8, 8, 4)),
        call("resize", shape(1, 4, 4, 3), (8, 8)),
    ],
    ids=lambda timed: timed.operation,
)
def test_both_forms_of_a_timed_operation_are_the_same_function(timed):
    fast = tune.program(timed, FAST)()
    plain = tune.program(timed, Forms("fast", frozenset([timed.operation])))()
    results, gradients = fast
    assert len(gradients) == sum(hasattr(leaf, "dtype") for leaf in timed.leaves)
    for ours, theirs in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    assert jnp.abs(jax.tree.leaves(results)[0]).max() > 0.1


def test_every_row_of_the_table_can_be_named_plain():
    assert tuple(TABLE) == schema.OPERATIONS
    config = narrow.config()
    config.model.forms = "fast without depthwise 3x3, barrier"
    schema.check(config)
    forms = models.build(config.model, 9).backbone.common.forms
    assert forms == Forms("fast", frozenset(["depthwise 3x3", "barrier"]))
    arguments = jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 1, 4))
    assert "custom_vjp" in str(jax.make_jaxpr(FAST.convolve)(*arguments))
    assert "custom_vjp" not in str(jax.make_jaxpr(forms.convolve)(*arguments))
    config.model.forms = "auto"  # for a network built alone, or a file for other devices
    assert models.build(config.model, 9).backbone.common.forms == FAST
    for wrong in ("fast without 5x5", "plain without 1x1", "auto without 1x1", "faster", ""):
        config.model.forms = wrong
        with pytest.raises(UserError, match=r"config\.model\.forms=.*operations are 1x1, 3x3"):
            schema.check(config)


def test_a_barrier_is_left_out_of_the_backward_pass_too():
    def text(forms):
        gradient = jax.grad(lambda x, kernel: forms.convolve(x, kernel).sum(), (0, 1))
        shapes = shape(1, 6, 6, 4), shape(1, 1, 4, 4)
        return str(jax.jit(gradient).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text())

    assert "optimization_barrier" in text(FAST)
    assert "optimization_barrier" not in text(Forms("fast", frozenset(["barrier"])))


@pytest.mark.slow
def test_a_neck_with_operations_plain_is_the_same_to_rounding():
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.standard_normal(shape.shape, np.float32)  # noqa: E731
    shapes = shape(1, 8, 8, 4), shape(1, 4, 4, 8), shape(1, 2, 2, 16)
    variables = jax.tree.map(draw, jax.eval_shape(JPU(4, Common()).init, jax.random.key(0), shapes))
    maps = jax.tree.map(draw, shapes)

    def features(forms):
        run = functools.partial(JPU(4, Common(forms=forms)).apply, train=True, mutable=True)
        return jax.jit(run)(variables, maps)[0]

    plain = frozenset(["1x1", "depthwise 3x3", "resize", "batch norm before 1x1"])
    ours, theirs = features(Forms("fast", plain)), features(FAST)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    assert not np.array_equal(ours, theirs)  # else both would be by the same operations


def measured(precision="float32", plain=("max pool",)):
    return measured_forms.write(precision, {"plain": list(plain)})


def test_tuning_writes_a_file_for_this_device_version_and_precision(cache, monkeypatch):
    config = narrow.config()
    calls = {call("max pool", shape(1, 8, 8, 4)): 1, convolution("1x1", (1, 1, 4, 4)): 2}
    monkeypatch.setattr(tune, "recorded", lambda config: collections.Counter(calls))
    seconds = iter([(1.0, 0.5), (1.0, 1.0)])
    found = tune.tuned(
        config, rounds=1, timer=lambda f, _: dict(zip(f, ([s] for s in next(seconds)), strict=True))
    )
    path = cache / "forms" / "cpu" / f"jax-{jax.__version__}" / "float32" / "forms.json"
    assert found["file"] == str(path)
    content = json.loads(path.read_text())
    assert content["plain"] == ["max pool"]
    assert content["operations"]["1x1"] == {"calls": 2, "fast": 2.0, "plain": 2.0, "always": False}
    assert (content["device"], content["jax"]) == ("cpu", jax.__version__)
    assert list(path.parent.iterdir()) == [path]
    rows = {line[:22].strip(): line[22:].split() for line in tune.table(found).splitlines()}
    assert rows["max pool"] == ["1", "1000.0", "500.0", "plain"]
    assert rows["barrier"] == ["not", "measured", "alone", "fast"]
    assert rows["depthwise 3x3"] == ["not", "in", "this", "network", "fast"]
    choice = measured_forms.chosen(config.model)
    assert choice.forms == "fast without max pool"
    assert str(path) in choice.note
    assert "--config.model.forms=fast" in choice.note
    config.model.precision = "bfloat16"
    assert measured_forms.chosen(config.model).file is None
    config.model.precision = "float32"
    monkeypatch.setattr(jax, "__version__", "99.0")
    assert measured_forms.chosen(config.model).file is None


def test_the_command_prints_the_table_and_keeps_the_choice(cache, tmp_path, monkeypatch, capsys):
    rows = {"1x1": tune.Times(3, 2.0, 1.0, True), "resize": tune.Times(2, 1.0, 3.0, False)}
    monkeypatch.setattr(tune, "recorded", lambda config: collections.Counter())
    monkeypatch.setattr(tune, "timed", lambda calls, rounds, timer: rows)
    json_file = tmp_path / "found.json"
    flags = ("--tune", "--config", "jpu_psp_cityscapes", "--batch=2", f"--json={json_file}")
    assert COMMAND.main(flags) == 0
    (path,) = cache.rglob("forms.json")
    assert json.loads(json_file.read_text())["file"] == str(path)
    printed = capsys.readouterr().out
    assert "psp, batch 2 of 512x1024" in printed
    assert printed.endswith(
        f"{path}: from now on config.model.forms='auto' is 'fast without 1x1' here\n"
    )


def test_only_auto_takes_what_was_measured():
    config = narrow.config()
    assert config.model.forms == "auto"
    unmeasured = measured_forms.chosen(config.model)
    assert (unmeasured.forms, unmeasured.file) == ("fast", None)
    assert "fastfcn bench --tune" in unmeasured.note
    measured()
    assert measured_forms.resolved(config)[0].model.forms == "fast without max pool"
    assert config.model.forms == "auto"
    for kind in ("fast", "plain", "fast without 1x1"):
        config.model.forms = kind
        assert measured_forms.chosen(config.model)[::2] == (kind, None)
    measured(plain=["resize", "1x1"])
    config.model.forms = "auto"
    assert measured_forms.chosen(config.model).forms == "fast without 1x1, resize"
    stored = experiment.from_json(experiment.to_json(measured_forms.resolved(config)[0]))
    assert stored.model.forms == "fast without 1x1, resize"


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"plain": [1]}', '{"plain": ["5x5"]}', '{"plain": "1x1"}']
)
def test_a_broken_file_is_named_and_not_used(content):
    path = measured()
    path.write_text(content)
    choice = measured_forms.chosen(narrow.config().model)
    assert (choice.forms, choice.file) == ("fast", path)
    assert str(path) in choice.note
    assert choice.note.endswith("by `fastfcn bench --tune --config NAME`, or remove it")
    assert path.read_text() == content


def test_a_cache_folder_that_cannot_be_written_is_named(cache):
    cache.parent.write_text("a file")
    with pytest.raises(UserError, match=r"forms.*cannot be created.*XDG_CACHE_HOME"):
        measured()
