"""The loss of one-channel models, compared with mmsegmentation: value, gradient and shards."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
from in_memory import InMemory

from fastfcn_jax.config.base import get_config
from fastfcn_jax.data.source import DatasetInfo, Sample
from fastfcn_jax.errors import UserError
from fastfcn_jax.models import Outputs, two_classes
from fastfcn_jax.training import class_weights, losses
from fastfcn_jax.training.region_losses import Terms

SIZE = (10, 13)


def case(name, b=4):
    """Logits of full size, and labels 0, 1 and 255."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (b, *SIZE, 1)).astype(np.float32)
    labels = rng.integers(0, 2, (b, *SIZE)).astype(np.uint8)
    labels[1][rng.random(SIZE) < 0.3] = 255
    if name == "one image ignored":
        labels[2] = 255
    if name == "absent class":
        labels[labels < 255] = 0
    if name == "saturated":
        logits += rng.choice([-200.0, 200.0], logits.shape).astype(np.float32)
    if name == "all ignored":
        labels[:] = 255
    return logits, labels


def ours(logits, labels, normalization="all_pixels", weights=(), axis_name=None, **options):
    over = losses.denominators(
        labels, normalization=normalization, class_weights=weights, axis_name=axis_name
    )
    return losses.total_loss(
        Outputs(jnp.asarray(logits), None, None), labels, 2, over=over, class_weights=weights,
        axis_name=axis_name, **options,
    )  # fmt: skip


@pytest.mark.parametrize("weights", [(), (3.0,)], ids=["equal", "weighted"])
@pytest.mark.parametrize("normalization", ["all_pixels", "valid_pixels"])
@pytest.mark.parametrize("name", ["random", "one image ignored", "absent class", "saturated"])
def test_value_and_gradient_are_mmsegs(name, normalization, weights):
    oracle.import_mmseg()
    from mmseg.models.losses import CrossEntropyLoss

    logits, labels = case(name)
    theirs = oracle.to_torch(logits).requires_grad_()
    loss = CrossEntropyLoss(
        use_sigmoid=True,
        class_weight=list(weights) or None,
        avg_non_ignore=normalization == "valid_pixels",
    )
    expected = loss(theirs, torch.from_numpy(labels).long(), ignore_index=255)
    expected.backward()

    @jax.jit
    def one(logits):
        run = jax.value_and_grad(lambda x: ours(x, jnp.asarray(labels), normalization, weights)[0])
        return run(logits)

    @jax.jit
    def shards(logits, labels):  # the value is their sum, the gradient each one's own
        def share(logits, labels):
            return jax.value_and_grad(
                lambda x: ours(x, labels, normalization, weights, "batch")[0]
            )(logits)

        return jax.vmap(share, axis_name="batch")(logits, labels)

    value, gradient = one(logits)
    halves = shards(*(jnp.asarray(x).reshape(2, 2, *x.shape[1:]) for x in (logits, labels)))
    for got, slope in ((value, gradient), (halves[0].sum(), halves[1].reshape(logits.shape))):
        assert float(got) == pytest.approx(float(expected.detach()), rel=2e-6)
        np.testing.assert_allclose(slope, oracle.to_numpy(theirs.grad), rtol=2e-6, atol=1e-9)


def test_without_a_valid_pixel_the_loss_is_zero_where_mmseg_ends():
    oracle.import_mmseg()
    from mmseg.models.losses import CrossEntropyLoss

    logits, labels = case("all ignored")
    with pytest.raises((RuntimeError, IndexError)):
        CrossEntropyLoss(use_sigmoid=True)(
            oracle.to_torch(logits), torch.from_numpy(labels).long(), ignore_index=255
        )
    for normalization in ("all_pixels", "valid_pixels"):
        run = jax.jit(
            jax.value_and_grad(lambda x, n=normalization: ours(x, jnp.asarray(labels), n)[0])
        )
        value, gradient = run(jnp.asarray(logits))
        assert float(value) == 0.0
        assert not np.asarray(gradient).any()


def test_the_accuracy_is_that_of_the_threshold():
    logits, labels = case("random")
    for threshold in (0.3, 0.7):
        valid = labels != 255
        predicted = 1 / (1 + np.exp(-logits[..., 0])) > threshold
        expected = 100 * (predicted == (labels == 1))[valid].mean()
        _, parts = ours(logits, jnp.asarray(labels), threshold=threshold)
        assert float(parts["accuracy"]) == pytest.approx(expected, rel=1e-6)


def test_dice_and_focal_are_mmsegs_of_the_second_class_alone():
    oracle.import_mmseg()
    from mmseg.models.losses import DiceLoss
    from mmseg.models.losses.focal_loss import py_sigmoid_focal_loss

    logits, labels = case("random")
    theirs, second = oracle.to_torch(logits), torch.from_numpy((labels == 1).astype(np.int64))
    terms = Terms((("dice", 1.0), ("focal", 1.0)))
    _, parts = ours(logits, jnp.asarray(labels), weights=(2.0,), terms=terms)
    dice = DiceLoss(ignore_index=None)(theirs, second[:, None])
    focal = py_sigmoid_focal_loss(
        theirs.reshape(-1, 1), second.reshape(-1, 1), reduction="none",
        valid_mask=torch.from_numpy(labels != 255).reshape(-1, 1),
    )  # fmt: skip
    focal *= torch.where(second == 1, 2.0, 1.0).reshape(-1, 1)
    assert float(parts["loss_dice"]) == pytest.approx(float(dice), rel=1e-6)
    assert float(parts["loss_focal"]) == pytest.approx(float(focal.mean()), rel=1e-6)


@pytest.mark.parametrize("term", ["cross_entropy", "class_dice", "lovasz", "tversky", "boundary"])
def test_the_other_terms_are_those_of_two_classes(term):
    # softmax of (0, x) is the sigmoid of x, so a one-channel model is one of two classes.
    logits, labels = case("random")
    terms = Terms(((term, 1.0),), label_smoothing=0.1)
    both = two_classes(jnp.asarray(logits))
    run = jax.jit(jax.value_and_grad(lambda x: ours(x, jnp.asarray(labels), terms=terms)[0]))
    runs = [run(x) for x in (jnp.asarray(logits), both)]
    assert float(runs[0][0]) == pytest.approx(float(runs[1][0]), rel=1e-6)
    np.testing.assert_allclose(runs[0][1][..., 0], runs[1][1][..., 1], atol=1e-8)


def test_the_weight_is_one_number():
    class Cells(InMemory):
        info = DatasetInfo("cells", ("rest", "cell"), np.zeros((2, 3), np.uint8))
        ids = ("a",)
        samples = (Sample("a", np.zeros((1, 4, 3), np.uint8), np.array([[0, 0, 0, 1]], np.uint8)),)

    source = Cells()
    model = get_config().model
    model.num_classes = 1
    assert class_weights.resolve((4.0,), source, model) == (4.0,)
    first, second = class_weights.balanced(np.array([0.75, 0.25]))
    assert class_weights.resolve(("auto",), source, model) == (second / first,)
    with pytest.raises(UserError, match="give one, the factor of the second class"):
        class_weights.resolve((1.0, 4.0), source, model)
