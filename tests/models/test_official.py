"""Every model of the official lineage against golden values of the official code.

`tests/golden/make_official.py` made them; weights and images are drawn again here.
"""

import functools
import zlib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import official_cases as cases
import oracle
import pytest
from flax import traverse_util
from stages import our_stages

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.convert import official_names
from fastfcn_jax.training import losses

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "official.npz"
ALL = pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)


@functools.cache
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN))


def build(case: cases.Case, precision: str = "float32"):
    config = get_config().model
    config.update(
        lineage="official",
        precision=precision,
        backbone=f"resnet{case.depth}",
        head=case.head,
        neck=case.neck,
        output_stride=8 if case.neck == "none" else 32,
        head_channels=256 if case.head == "aspp" else 512,
        se_branch=case.head == "enc",
        lateral=case.lateral,
    )
    return models.build(config, cases.NUM_CLASSES)


@functools.cache
def template(case: cases.Case) -> dict:
    """Zero-strided stand-ins for the variables: shapes without memory."""
    shapes = jax.eval_shape(build(case).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), dict(shapes))


def variables_of(case: cases.Case) -> dict:
    """Our variables, each tensor drawn by its official name."""
    shapes = official_names.from_flax(template(case))
    tensors = {key: oracle.random_tensor(key, value.shape) for key, value in shapes.items()}
    return official_names.to_flax(tensors)


@ALL
def test_state_dict_has_the_official_names_and_shapes(case):
    tensors = official_names.from_flax(template(case))
    keys = sorted(f"{key} {value.shape}" for key, value in tensors.items())
    assert len(keys) == golden()[f"{case.name}/entries"]
    assert zlib.crc32("\n".join(keys).encode()) == golden()[f"{case.name}/names"]


@ALL
def test_stages_and_losses(case):
    ours = our_stages(build(case), jax.device_put(variables_of(case)), cases.images(case))
    for name, value in ours.items():
        expected = golden()[f"{case.name}/{name}"]
        peak = golden()[f"{case.name}/{name}_peak"]
        error = np.abs(cases.sample(value, name) - expected).max()
        assert error <= 1e-4 * max(1.0, peak / 10), f"{name}: error {error:.2e} of {peak:.2f}"
    outputs = models.Outputs(
        **{k: jnp.asarray(ours[k]) if k in ours else None for k in models.Outputs._fields}
    )
    _, parts = loss(outputs, cases.labels(case))
    total = parts["loss_decode"] + parts["loss_auxiliary"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    close(total, golden()[f"{case.name}/loss_aux"])
    if case.head == "enc":
        close(parts["loss_decode"] + parts["loss_se"], golden()[f"{case.name}/loss_se"])
        close(total + parts["loss_se"], golden()[f"{case.name}/loss_aux_se"])


def loss(outputs, labels):
    """The official loss: labels -1 are our 255, the mean is over valid pixels."""
    labels = jnp.asarray(labels.astype(np.uint8))
    return losses.total_loss(
        outputs,
        labels,
        cases.NUM_CLASSES,
        over=losses.denominators(labels, normalization="valid_pixels"),
        auxiliary_weight=0.4,
        align_corners=True,
    )


@pytest.mark.parametrize("case", [c for c in cases.CASES if c.train], ids=lambda case: case.name)
def test_one_sgd_step(case):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        variables = jax.tree.map(np.float64, variables_of(case))
        value, statistics, gradients = gradients_of(case, variables)
    np.testing.assert_allclose(value, golden()[f"{case.name}/train_loss"], rtol=1e-6)
    # The first step of SGD with weight decay moves a weight by -rate * (gradient + 1e-4 weight).
    change = {
        part: jax.tree.map(
            functools.partial(_sgd_change, 0.01 if part == "backbone" else 0.1),
            gradients[part],
            variables["params"][part],
        )
        for part in gradients
    }
    moved = jax.tree.map(np.subtract, statistics, variables["batch_stats"])
    tensors = official_names.from_flax({"params": change, "batch_stats": moved})
    samples = golden()[f"{case.name}/step_sample"]
    for key, norm in zip(sorted(tensors), golden()[f"{case.name}/step"], strict=True):
        ours = cases.sample(tensors[key], "step", cases.STEP_SAMPLE)
        expected, samples = samples[: ours.size], samples[ours.size :]
        np.testing.assert_allclose(np.linalg.norm(tensors[key]), norm, rtol=1e-5, err_msg=key)
        typical = norm / tensors[key].size ** 0.5
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * typical, err_msg=key)
    assert samples.size == 0


def gradients_of(case, variables):
    """(loss, statistics after, gradients) of one training pass in float64, as NumPy arrays.

    float32 would not do as a measure: where rounding flips a ReLU its gradient is off by more
    than rounding, in PyTorch by up to 0.5 % on these untrained networks.
    """
    model = build(case, "float64")
    images, labels = cases.training_batch(case)

    def total(params):
        outputs, new = model.apply(
            {**variables, "params": params},
            jnp.asarray(images),
            train=True,
            mutable=["batch_stats"],
        )
        return loss(outputs, labels)[0], new["batch_stats"]

    def without_dropout(call, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    with nn.intercept_methods(without_dropout):
        (value, statistics), gradients = jax.tree.map(np.asarray, run(variables["params"]))
    return value, statistics, gradients


def _sgd_change(rate, gradient, weight):
    return -rate * (np.asarray(gradient) + 1e-4 * weight)


def test_round_trip_is_exact():
    case = cases.CASES[0]
    variables = traverse_util.flatten_dict(variables_of(case))
    again = traverse_util.flatten_dict(
        official_names.to_flax(official_names.from_flax(traverse_util.unflatten_dict(variables)))
    )
    assert variables.keys() == again.keys()
    assert all(np.array_equal(variables[key], again[key]) for key in variables)
