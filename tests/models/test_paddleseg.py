"""PaddleSeg's FastFCN against golden values of its own code (`golden/make_paddleseg.py`)."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import paddleseg_case as case
import pytest

from fastfcn_jax import models
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import detect, fit, mmseg_names, paddleseg_names, pdparams
from fastfcn_jax.convert.pth import ReadResult
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference import predictor
from fastfcn_jax.models import resnet
from fastfcn_jax.training import losses

GOLDEN = Path(__file__).parents[1] / "golden" / "paddleseg.npz"


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    """The golden network has fewer blocks than any that we offer; resnet152 stands for it here."""
    monkeypatch.setitem(resnet.BLOCKS, "resnet152", resnet.Blocks(resnet.Bottleneck, case.BLOCKS))


@functools.cache
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN))


def config(**model):
    c = experiment.load("paddleseg_fastfcn_ade20k")
    c.model.update(
        backbone="resnet152",
        base_width=case.WIDTH,
        neck_channels=case.CHANNELS,
        head_channels=case.CHANNELS,
        auxiliary_channels=case.CHANNELS,
        num_classes=case.NUM_CLASSES,
        **model,
    )
    return c


def state_dict() -> dict[str, np.ndarray]:
    """The state dict with which PaddleSeg's model computed the golden values."""
    entries = (entry.split(" ", 1) for entry in golden()["names"].tolist())
    return {
        name: case.tensor(name, tuple(int(n) for n in shape.strip("()").split(",") if n.strip()))
        for name, shape in entries
    }


@functools.cache
def converted():
    """Our variables, by way of a file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pdparams"
        pdparams.write(path, state_dict())
        return fit.to_variables(pdparams.read(path), config().model, case.NUM_CLASSES)


def test_a_file_is_recognised_and_taken_whole():
    found = converted().report.detected
    assert detect.differences(found, config().model, case.NUM_CLASSES) == []
    report = converted().report
    assert len(report.mapped) + sum(map(len, report.ignored.values())) == len(state_dict())
    assert [*report.ignored.values()][-1] == (
        "enc_module.encoding_project._conv.bias",
        "fcn_head.conv_bn_relu._conv.bias",
    )


def test_what_is_missing_has_paddlesegs_name():
    tensors = state_dict()
    del tensors["jpu_layer.dilation3.piontwise_conv._batch_norm._variance"]
    del tensors["backbone.bb_2_0.short._conv.weight"]
    file = ReadResult(tensors, "", (), ())
    missing = (
        r"\(2\): backbone.bb_2_0.short._conv.weight, jpu_layer.dilation3.piontwise_conv._batch"
    )
    with pytest.raises(UserError, match=missing):
        fit.to_variables(file, config().model, case.NUM_CLASSES)


@pytest.mark.slow
def test_logits():
    """Both images in one padded batch: c2, which only this lineage hands to the head, too."""
    batch = np.random.default_rng(0).normal(size=(2, *case.SIZES[1], 3)).astype(np.float32)
    for image, (h, w) in zip(batch, case.SIZES, strict=True):
        image[:h, :w] = case.images((h, w))[0]
    model = models.build(config().model, case.NUM_CLASSES)
    run = jax.jit(functools.partial(model.apply, auxiliary=True))
    ours = run(converted().variables, batch, size=np.array(case.SIZES, np.int32))
    for i, (h, w) in enumerate(case.SIZES):
        for part in ("logits", "auxiliary", "se"):
            expected = golden()[f"{h}x{w}/{part}"][0]
            found = getattr(ours, part)[i]
            if expected.ndim == 3:
                found = found[: expected.shape[0], : expected.shape[1]]
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=part)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["flip", "paddleseg_ms"])
def test_protocols(protocol):
    c = config()
    c.eval.ratios = case.RATIOS
    model = models.build(c.model, case.NUM_CLASSES)
    tested = predictor.build(c, model, converted().variables, protocol=protocol)
    scores = tested.scores(case.photo())
    np.testing.assert_allclose(case.sample(scores, 1000), golden()[f"{protocol}/scores"], atol=1e-4)
    expected = golden()[f"{protocol}/labels"]
    assert (scores.argmax(-1) == expected).mean() > 0.9995  # but for ties
    assert len(np.unique(expected)) > 2


@pytest.mark.slow
def test_one_step_of_training():
    """Gradients, weight decay and statistics in float64; dropout is left out."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        variables = jax.tree.map(np.float64, converted().variables)
        parts, statistics, gradients = gradients_of(variables)
    np.testing.assert_allclose(parts, golden()["train/losses"], rtol=1e-6)
    params, running = variables["params"], variables["batch_stats"]
    moved = paddleseg_names.from_mmseg(
        mmseg_names.from_flax(
            {
                "params": jax.tree.map(lambda g, w: -0.01 * (g + 4e-5 * w), gradients, params),
                "batch_stats": jax.tree.map(np.subtract, statistics, running),
            }
        )
    )
    names, samples = golden()["train/names"].tolist(), golden()["train/samples"]
    assert sorted(moved) == names
    for name, norm in zip(names, golden()["train/norms"], strict=True):
        ours = case.sample(moved[name])
        expected, samples = samples[: ours.size], samples[ours.size :]
        if name.endswith("_conv.bias"):  # ours is part of the mean
            continue
        if name.endswith(
            "_variance"
        ):  # Paddle keeps the biased variance, PyTorch n / (n - 1) of it
            before = 0.1 * case.sample(case.tensor(name, moved[name].shape))
            ours, expected = ours + before, expected + before
            factor = ours.sum() / expected.sum()
            # Paddle's momentum is a float32.
            np.testing.assert_allclose(ours, factor * expected, 1e-5, 1e-7, err_msg=name)
            assert 1.0 < factor < 1.04
            continue
        typical = norm / moved[name].size ** 0.5
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * typical, err_msg=name)
        np.testing.assert_allclose(np.linalg.norm(moved[name]), norm, rtol=1e-5, err_msg=name)


def gradients_of(variables):
    model = models.build(config(precision="float64").model, case.NUM_CLASSES)
    images, labels = case.training_batch()
    labels = jnp.asarray(labels.astype(np.uint8))

    def total(params):
        outputs, new = model.apply(
            {**variables, "params": params},
            jnp.asarray(images),
            train=True,
            mutable=["batch_stats"],
        )
        value, parts = losses.total_loss(
            outputs,
            labels,
            case.NUM_CLASSES,
            over=losses.denominators(labels, normalization="valid_pixels"),
        )
        return value, (parts, new["batch_stats"])

    def without_dropout(call, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)

    with nn.intercept_methods(without_dropout):
        run = jax.jit(jax.grad(total, has_aux=True))
        gradients, (parts, statistics) = jax.tree.map(np.asarray, run(variables["params"]))
    weights = {"loss_decode": 1.0, "loss_auxiliary": 0.4, "loss_se": 0.2}
    return [parts[name] / weight for name, weight in weights.items()], statistics, gradients


def test_round_trip():
    variables = converted().variables
    tensors = fit.to_tensors(variables, "paddleseg")
    file = ReadResult(tensors, "", (), ())
    again = fit.to_variables(file, config().model, case.NUM_CLASSES).variables
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    given = state_dict()
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in given.items()}
    same = [n for n in given if not n.endswith(("_conv.bias", "._mean"))]
    for name in same:
        np.testing.assert_array_equal(tensors[name], given[name])
