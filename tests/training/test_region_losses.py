"""The terms of the loss, compared with mmsegmentation and PyTorch: value, gradient and shards."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from jax.sharding import Mesh, PartitionSpec

from fastfcn_jax.config import base, schema
from fastfcn_jax.config.flags import parse
from fastfcn_jax.errors import UserError
from fastfcn_jax.models import Outputs
from fastfcn_jax.training import losses, region_losses
from fastfcn_jax.training.region_losses import Terms

CLASSES, SIZE = 4, (10, 13)
WEIGHTS = (0.5, 1.0, 2.0, 3.0)


def case(name, b=4):
    """Logits of full size, and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (b, *SIZE, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, (b, *SIZE)).astype(np.uint8)
    labels[1][rng.random(SIZE) < 0.3] = 255
    if name == "all ignored":
        labels[:] = 255
    if name == "one image ignored":
        labels[2] = 255
    if name == "absent classes":
        labels[labels < 255] %= 2
    if name == "saturated":
        logits += rng.choice([-200.0, 200.0], logits.shape).astype(np.float32)
    return logits, labels


def ours(logits, labels, terms, weights=(), normalization="all_pixels", axis_name=None):
    over = losses.denominators(
        labels, normalization=normalization, class_weights=weights, axis_name=axis_name
    )
    return losses.total_loss(
        Outputs(jnp.asarray(logits), None, None), labels, CLASSES, over=over, terms=terms,
        class_weights=weights, axis_name=axis_name,
    )  # fmt: skip


def one_hot(labels):
    """NCHW, all 0 where ignored."""
    return F.one_hot(labels.clamp(max=CLASSES), CLASSES + 1)[..., :CLASSES].permute(0, 3, 1, 2)


def focal(logits, labels, weights):
    """mmseg's loss for CPUs; its class, FocalLoss, takes a wrong column of the labels there."""
    from mmseg.models.losses.focal_loss import py_sigmoid_focal_loss

    def flat(x):
        return x.permute(0, 2, 3, 1).reshape(-1, CLASSES)

    valid = (labels != 255).reshape(-1, 1)
    return py_sigmoid_focal_loss(
        flat(logits), flat(one_hot(labels)), valid_mask=valid, class_weight=weights
    )


def class_dice(logits, labels, weights):
    """mmseg's function, with classes where it has images."""
    from mmseg.models.losses.dice_loss import dice_loss

    valid = (labels != 255)[:, None]
    maps = [x.transpose(0, 1).reshape(CLASSES, 1, 1, -1)
            for x in (logits.softmax(1) * valid, one_hot(labels))]  # fmt: skip
    loss = dice_loss(*maps, None, naive_dice=True, reduction="none", ignore_index=None)
    present = one_hot(labels).sum((0, 2, 3)) > 0
    return loss[present].mean() if present.any() else logits.sum() * 0


def boundary(logits, labels, weights):
    """PyTorch's mean cross entropy over the pixels that OpenCV finds near a border."""
    near = np.zeros(labels.shape, bool)
    square = np.ones((7, 7), np.uint8)
    for i, label in enumerate(labels.numpy().astype(np.uint8)):
        around = [cv2.dilate((label == k).astype(np.uint8), square) for k in range(CLASSES)]
        near[i] = (np.sum(around, axis=0) > 1) & (label != 255)
    kept = torch.where(torch.from_numpy(near), labels, 255)
    weight = None if weights is None else logits.new_tensor(weights)
    loss = F.cross_entropy(logits, kept, weight, ignore_index=255)
    return loss if near.any() else logits.sum() * 0


def module(name, **options):
    def loss(logits, labels, weights):
        from mmseg.models import losses as theirs

        weighted = {} if name == "DiceLoss" else {"class_weight": weights}
        with pytest.MonkeyPatch.context() as patch:
            # LovaszLoss makes float32 factors; in float64 they are exact.
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return getattr(theirs, name)(**options, **weighted)(logits, labels).sum()

    return loss


ORACLES = {
    "dice": module("DiceLoss"),
    "class_dice": class_dice,
    "lovasz": module("LovaszLoss", reduction="none"),
    "focal": focal,
    "tversky": module("TverskyLoss"),
    "boundary": boundary,
}


@pytest.mark.parametrize("weights", [(), WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    "name", ["random", "all ignored", "one image ignored", "absent classes", "saturated"]
)
@pytest.mark.parametrize("term", ORACLES)
def test_value_and_gradient_are_the_oracles(term, name, weights):
    oracle.import_mmseg()
    logits, labels = case(name)
    theirs = oracle.to_torch(logits.astype(np.float64)).requires_grad_()
    expected = ORACLES[term](theirs, torch.from_numpy(labels).long(), list(weights) or None)
    expected.backward()
    terms = Terms((("cross_entropy", 1e-30), (term, 2.0)))

    def loss(logits):
        return ours(logits, jnp.asarray(labels), terms, weights)[1][f"loss_{term}"]

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    assert float(value) == pytest.approx(2 * float(expected), rel=2e-6, abs=1e-9)
    gradient, expected = np.asarray(gradient), 2 * oracle.to_numpy(theirs.grad)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, expected, atol=2e-6 * max(np.abs(expected).max(), 1e-6))


@pytest.mark.parametrize("weights", [(), WEIGHTS], ids=["equal", "weighted"])
def test_label_smoothing_is_pytorchs(weights):
    logits, labels = case("random")
    theirs = oracle.to_torch(logits).requires_grad_()
    weight = torch.tensor(weights) if weights else None
    expected = F.cross_entropy(
        theirs, torch.from_numpy(labels).long(), weight, ignore_index=255, label_smoothing=0.1
    )
    expected.backward()
    terms = Terms(label_smoothing=0.1)
    value, gradient = jax.value_and_grad(
        lambda x: ours(x, jnp.asarray(labels), terms, weights, "valid_pixels")[0]
    )(logits)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(gradient, oracle.to_numpy(theirs.grad), atol=1e-7)


def test_focal_divides_like_the_cross_entropy():
    logits, labels = case("random")
    labels = jnp.asarray(labels)
    terms = Terms((("focal", 1.0),))
    every = ours(logits, labels, terms)[1]["loss_focal"]
    valid = ours(logits, labels, terms, normalization="valid_pixels")[1]["loss_focal"]
    share = float((labels != 255).mean())
    assert float(every / valid) == pytest.approx(share, rel=1e-6)


def test_the_default_is_the_cross_entropy_alone_and_weights_scale_it():
    logits, labels = case("random")
    total, parts = ours(logits, jnp.asarray(labels), Terms())
    assert parts.keys() == {"loss_decode", "accuracy"}
    three = Terms((("cross_entropy", 3.0), ("dice", 1.0)))
    both, split = ours(logits, jnp.asarray(labels), three)
    assert float(split["loss_decode"]) == pytest.approx(3 * float(total), rel=1e-6)
    assert float(both) == pytest.approx(float(split["loss_decode"] + split["loss_dice"]), rel=1e-6)
    alone = ours(logits, jnp.asarray(labels), Terms((("lovasz", 1.0),)))[1]
    assert alone.keys() == {"loss_lovasz", "accuracy"}


def test_the_auxiliary_head_keeps_its_cross_entropy():
    logits, labels = map(jnp.asarray, case("random"))
    outputs = Outputs(logits, logits, None)
    plain = losses.total_loss(outputs, labels, CLASSES)[1]
    dice = losses.total_loss(outputs, labels, CLASSES, terms=Terms((("dice", 1.0),)))[1]
    assert float(dice["loss_auxiliary"]) == float(plain["loss_auxiliary"])


@pytest.mark.parametrize("how", ["pmap", "jit"])
def test_two_devices_equal_one_with_the_whole_batch(how):
    """Unequal shards: classes and valid pixels that only one of them has."""
    logits, labels = case("one image ignored")
    labels[:2][labels[:2] == 3] = 1
    terms = Terms(tuple((name, 1.0) for name in schema.LOSS_TERMS))
    options = {"weights": WEIGHTS, "normalization": "valid_pixels"}

    def shard(axis_name, logits, labels):
        def loss(logits):
            return ours(logits, labels, terms, axis_name=axis_name, **options)

        (_, parts), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
        return (parts if axis_name is None else jax.lax.psum(parts, axis_name)), gradient

    expected, whole = jax.jit(functools.partial(shard, None))(logits, labels)
    halves = [x.reshape(2, 2, *x.shape[1:]) for x in (logits, labels)]
    one = functools.partial(shard, "batch")
    if how == "pmap":
        parts, gradient = jax.pmap(one, "batch", out_axes=(None, 0))(*halves)
    else:
        spec = PartitionSpec("batch")
        mapped = jax.shard_map(
            one, mesh=Mesh(np.array(jax.devices()[:2]), ("batch",)), in_specs=(spec, spec),
            out_specs=(PartitionSpec(), spec), check_vma=False,
        )  # fmt: skip
        parts, gradient = jax.jit(mapped)(logits, labels)
    for name, value in expected.items():
        assert float(parts[name]) == pytest.approx(float(value), rel=2e-6), name
    gradient = np.asarray(gradient).reshape(whole.shape)
    np.testing.assert_allclose(gradient, whole, atol=2e-6 * np.abs(whole).max())


def test_micro_batches_share_the_terms_of_a_whole_batch():
    logits, labels = map(jnp.asarray, case("random"))
    halves = (slice(2), slice(2, 4))
    terms = Terms(tuple((name, 1.0) for name in ("class_dice", "lovasz", "boundary", "dice")))

    def parts(of, over):
        outputs = Outputs(logits[of], None, None)
        return losses.total_loss(outputs, labels[of], CLASSES, over=over, terms=terms)[1]

    update = losses.denominators(labels.reshape(2, 2, *SIZE))
    shared = [parts(half, update) for half in halves]
    alone = [parts(half, None) for half in halves]
    for name, _ in terms.weights:
        mean = sum(float(p[f"loss_{name}"]) for p in alone) / 2
        assert sum(float(p[f"loss_{name}"]) for p in shared) == pytest.approx(mean, rel=1e-6)


def test_lovasz_is_the_jaccard_loss_of_hard_predictions():
    labels = np.array([[[0, 0, 1, 1, 1, 255]]], np.uint8)
    predicted = np.array([[[0, 1, 1, 1, 0, 0]]])
    logits = jnp.asarray(np.eye(2, dtype=np.float32)[predicted] * 400)
    found = region_losses.lovasz(logits, jnp.asarray(labels), jnp.ones(2), None)
    assert float(found) == pytest.approx(1 - (1 / 3 + 2 / 4) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((), "is empty"),
        (("dise",), "'dise' is not NAME or NAME:WEIGHT .* cross_entropy, dice"),
        (("dice:-1",), "weight above 0"),
        (("dice:nan",), "weight above 0"),
        (("dice:",), "weight above 0"),
        (("dice", "dice:2"), "dice twice; add their weights"),
        (("cross_entropy", 3), "3 is not NAME"),
    ],
)
def test_bad_terms_are_refused(terms, message):
    c = base.get_config()
    c.loss.terms = terms
    with pytest.raises(UserError, match=message):
        schema.check(c)


def test_terms_come_from_the_command_line():
    words = "--config.loss.terms=('cross_entropy','dice:3')"
    found = schema.loss_terms(parse("jpu_psp_camvid", [words]).loss.terms)
    assert found == (("cross_entropy", 1.0), ("dice", 3.0))


def test_borders_do_not_arise_from_ignored_pixels():
    label = np.full((1, 9, 9), 255, np.uint8)
    label[0, :, :4], label[0, :, 6:] = 1, 0  # a border band of two ignored columns between them
    assert not region_losses.near_boundary(jnp.asarray(label), 2).any()
    near = np.asarray(region_losses.near_boundary(jnp.asarray(label), 3))[0]
    np.testing.assert_array_equal(near[4], [0, 0, 0, 1, 0, 0, 1, 0, 0])
