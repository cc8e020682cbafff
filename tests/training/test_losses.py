"""Losses compared with PyTorch and mmsegmentation, and their sums over shards."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F

from fastfcn_jax.models import Outputs
from fastfcn_jax.training import losses

CLASSES = 5


def batch(b=4, ignored=0.3, seed=0):
    """Low-resolution logits of both heads, SE logits, and labels with unequal ignored areas."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (b, 33, 40)).astype(np.uint8)
    for i in range(b):
        labels[i][rng.random((33, 40)) < ignored * i] = 255
    draw = [rng.normal(0, 3, (b, h, w, CLASSES)).astype(np.float32) for h, w in ((5, 5), (3, 3))]
    return Outputs(*map(jnp.asarray, draw), se=jnp.asarray(rng.normal(0, 2, (b, CLASSES)),
                                                           jnp.float32)), labels  # fmt: skip


def torch_cross_entropy(logits, labels, *, align_corners=False, weight=None):
    """Per-pixel losses of the upsampled logits, 0 where ignored."""
    enlarged = F.interpolate(
        oracle.to_torch(np.asarray(logits)), labels.shape[1:], mode="bilinear",
        align_corners=align_corners,
    )  # fmt: skip
    weight = None if weight is None else torch.tensor(weight)
    return F.cross_entropy(
        enlarged, torch.from_numpy(labels).long(), ignore_index=255, reduction="none", weight=weight
    )


def ours(outputs, labels, normalization="all_pixels", weights=(), **kwargs):
    labels = jnp.asarray(labels)
    over = losses.denominators(labels, normalization=normalization, class_weights=weights)
    return losses.total_loss(outputs, labels, CLASSES, over=over, class_weights=weights, **kwargs)


def test_mmseg_divides_by_all_pixels():
    outputs, labels = batch()
    oracle.import_mmseg()
    from mmseg.models.losses import CrossEntropyLoss

    logits = F.interpolate(oracle.to_torch(np.asarray(outputs.logits)), (33, 40), mode="bilinear")
    expected = CrossEntropyLoss()(logits, torch.from_numpy(labels).long(), ignore_index=255)
    _, parts = ours(outputs, labels)
    assert abs(float(parts["loss_decode"]) - float(expected)) < 1e-6
    expected = 0.4 * torch_cross_entropy(outputs.auxiliary, labels).mean()
    assert abs(float(parts["loss_auxiliary"]) - float(expected)) < 1e-6


def test_official_divides_by_valid_pixels_and_aligns_corners():
    outputs, labels = batch()
    total, parts = ours(outputs, labels, "valid_pixels", align_corners=True, auxiliary_weight=0.2)
    per_pixel = torch_cross_entropy(outputs.logits, labels, align_corners=True)
    expected = per_pixel.sum() / (labels != 255).sum()
    assert abs(float(parts["loss_decode"]) - float(expected)) < 1e-6
    assert float(total) == pytest.approx(sum(float(parts[k]) for k in parts if "loss" in k))


def test_official_per_shard_averages_the_shards_own_means():
    outputs, labels = batch()

    def share(outputs, labels):
        over = losses.denominators(
            labels, normalization="valid_pixels_per_shard", axis_name="batch"
        )
        return losses.total_loss(outputs, labels, CLASSES, over=over, axis_name="batch")[1]

    halves = jax.tree.map(lambda x: jnp.asarray(x).reshape(2, 2, *x.shape[1:]), (outputs, labels))
    parts = jax.tree.map(jnp.sum, jax.vmap(share, axis_name="batch")(*halves))
    per_pixel = torch_cross_entropy(outputs.logits, labels)
    means = [
        per_pixel[half].sum() / (labels[half] != 255).sum() for half in (slice(2), slice(2, 4))
    ]
    assert float(parts["loss_decode"]) == pytest.approx(float(sum(means) / 2), rel=1e-6)
    assert abs(float(means[0] - means[1])) > 0.02  # else equal to the global mean


def test_per_micro_batch_is_the_mean_of_mmsegs_own_means():
    outputs, labels = batch()
    labels[3] = 255  # a micro-batch of one shard without a valid pixel: mmseg's loss is 0
    oracle.import_mmseg()
    from mmseg.models.losses import CrossEntropyLoss

    def share(outputs, labels):  # of one shard, all its micro-batches
        over = losses.denominators(
            labels, normalization="valid_pixels_per_micro_batch", axis_name="batch"
        )
        one = [
            losses.total_loss(
                jax.tree.map(lambda x, i=i: x[i], outputs), labels[i], CLASSES,
                over=losses.of_micro_batch(over, i), axis_name="batch",
            )[1]["loss_decode"]
            for i in range(2)
        ]  # fmt: skip
        return one[0] + one[1]

    shards = jax.tree.map(
        lambda x: jnp.asarray(x).reshape(2, 2, 1, *x.shape[1:]), (outputs, labels)
    )
    found = jax.jit(jax.vmap(share, axis_name="batch"))(*shards).sum()
    logits = F.interpolate(oracle.to_torch(np.asarray(outputs.logits)), (33, 40), mode="bilinear")
    means = [
        float(
            CrossEntropyLoss(avg_non_ignore=True)(
                logits[i : i + 1], torch.from_numpy(labels[i : i + 1]).long(), ignore_index=255
            )
        )
        for i in range(4)
    ]
    assert float(found) == pytest.approx(sum(means) / 4, rel=1e-6)
    assert means[3] == 0.0


def test_se_loss_at_saturated_logits_is_not_the_official_clamp():
    # What docs/training.md says of the two: equal up to 16, then the official one loses its pull.
    for logit, present, same in (
        (15.0, 0.0, True), (-15.0, 1.0, True), (200.0, 0.0, False), (-200.0, 1.0, False)
    ):  # fmt: skip
        theirs = torch.tensor(logit, requires_grad=True)
        F.binary_cross_entropy(torch.sigmoid(theirs), torch.tensor(present)).backward()
        value, slope = jax.value_and_grad(
            lambda x, y=present: losses.binary_cross_entropy(x, jnp.full((1, 1), y)).sum()
        )(jnp.full((1, 1), logit))
        assert float(value) == pytest.approx(abs(logit))
        assert slope.item() == pytest.approx(np.sign(logit))
        assert (float(theirs.grad) == pytest.approx(slope.item(), abs=0.1)) == same
        if not same:
            clamped = F.binary_cross_entropy(torch.sigmoid(theirs), torch.tensor(present))
            assert float(clamped) == 100.0
            assert float(theirs.grad) == 0.0


def test_se_loss_is_binary_cross_entropy_of_presence():
    outputs, labels = batch()
    labels[1][labels[1] == 3] = 255
    labels[2] = 255
    presence = torch.tensor([[float((one == k).any()) for k in range(CLASSES)] for one in labels])
    expected = 0.2 * F.binary_cross_entropy_with_logits(
        torch.tensor(np.asarray(outputs.se)), presence
    )
    _, parts = ours(outputs, labels)
    assert abs(float(parts["loss_se"]) - float(expected)) < 1e-6


@pytest.mark.parametrize("normalization", ["all_pixels", "valid_pixels"])
def test_a_batch_without_valid_pixels_has_loss_zero(normalization):
    outputs, labels = batch()
    _, parts = ours(outputs, np.full_like(labels, 255), normalization)
    assert float(parts["loss_decode"]) == 0.0
    assert float(parts["accuracy"]) == 0.0


@pytest.mark.parametrize("scale", [1.0, 1e-6])  # the weights of all pixels sum to less than 1
def test_class_weights_are_pytorchs(scale):
    outputs, labels = batch()
    weights = tuple(scale * w for w in (0.5, 1.0, 2.0, 0.1, 3.0))
    _, parts = ours(outputs, labels, "valid_pixels", weights)
    expected = F.cross_entropy(
        F.interpolate(oracle.to_torch(np.asarray(outputs.logits)), (33, 40), mode="bilinear"),
        torch.from_numpy(labels).long(),
        ignore_index=255,
        weight=torch.tensor(weights),
    )
    assert float(parts["loss_decode"]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.1, 3), (0.05, 400), (0.9, 3), (0.7, 2**30)])
def test_hard_pixels_are_those_of_mmseg(threshold, min_kept):
    outputs, labels = batch()
    oracle.import_mmseg()
    from mmseg.structures.sampler import OHEMPixelSampler

    sampler = OHEMPixelSampler(
        types.SimpleNamespace(ignore_index=255), thresh=threshold, min_kept=min_kept
    )
    logits = F.interpolate(oracle.to_torch(np.asarray(outputs.logits)), (33, 40), mode="bilinear")
    kept = sampler.sample(logits, torch.from_numpy(labels)[:, None])
    on_device = jnp.asarray(labels)
    loss, _ = losses.pixel_cross_entropy(jnp.asarray(oracle.to_numpy(logits)), on_device)
    found = losses.hard_pixels(jnp.exp(-loss), on_device, threshold, min_kept)
    # One pixel may be so near the threshold that rounding decides.
    assert np.abs(np.asarray(found).astype(int) - kept.numpy()).sum() <= 1
    assert 0 < kept.sum() <= (labels != 255).sum()


def test_accuracy_counts_valid_pixels_only():
    logits = jnp.eye(CLASSES)[jnp.array([[[0, 1], [2, 3]]])]
    labels = np.array([[[0, 1], [4, 255]]], np.uint8)
    _, parts = ours(Outputs(logits, None, None), labels)
    assert float(parts["accuracy"]) == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize("normalization", ["all_pixels", "valid_pixels"])
def test_shares_of_shards_sum_to_the_batch(normalization):
    outputs, labels = batch()
    options = {"ohem_threshold": 0.3, "ohem_min_kept": 50}
    expected, expected_parts = ours(outputs, labels, normalization, **options)

    def share(outputs, labels):
        over = losses.denominators(labels, normalization=normalization, axis_name="batch")
        result = losses.total_loss(
            outputs, labels, CLASSES, over=over, axis_name="batch", **options
        )
        return jax.lax.psum(result, "batch")

    halves = jax.tree.map(lambda x: jnp.asarray(x).reshape(2, 2, *x.shape[1:]), (outputs, labels))
    total, parts = jax.vmap(share, axis_name="batch")(*halves)
    np.testing.assert_allclose(total, float(expected), rtol=1e-6)
    for name, value in expected_parts.items():
        np.testing.assert_allclose(parts[name], float(value), rtol=1e-6)


def test_gradient_is_pytorchs():
    outputs, labels = batch()
    logits = oracle.to_torch(np.asarray(outputs.logits)).requires_grad_()
    enlarged = F.interpolate(logits, (33, 40), mode="bilinear")
    F.cross_entropy(
        enlarged, torch.from_numpy(labels).long(), ignore_index=255, reduction="sum"
    ).backward()
    gradient = jax.grad(lambda x: ours(Outputs(x, None, None), labels)[0] * labels.size)(
        outputs.logits
    )
    np.testing.assert_allclose(gradient, oracle.to_numpy(logits.grad), atol=2e-5)


def test_on_a_gpu_the_main_losss_gradient_waits_for_the_auxiliary_ones():
    """Only the program's memory would differ, so count barriers; each resize has one as well."""
    outputs, labels = batch()

    def loss(logits, auxiliary):
        both = Outputs(logits, auxiliary, se=None)
        return losses.total_loss(both, jnp.asarray(labels), CLASSES)[0]

    def barriers(platform):
        export = jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])
        program = export(outputs.logits, outputs.auxiliary)
        return program.mlir_module().count("optimization_barrier")

    assert barriers("cuda") > barriers("cpu")
