"""Folded models and those of plain forms: the same logits, other arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from fastfcn_jax.models import folding
from fastfcn_jax.models.ops.forms import Forms

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("lineage", "head", "neck"), [("mmseg", "enc", "jpu"), ("official", "psp", "jpu_x")]
)
def test_folding_and_plain_forms_keep_the_logits(lineage, head, neck):
    model, variables = small.random_model(lineage, head, neck)
    images = np.random.default_rng(0).normal(size=(1, 61, 83, 3)).astype(np.float32)
    expected = jax.jit(model.apply)(variables, images)
    folded = folding.fold(variables)
    # Nothing of a BatchNorm is left but its bias, the one over the codes excepted.
    means = [path for path, _ in jax.tree_util.tree_leaves_with_path(folded["batch_stats"])]
    assert len(means) == (2 if head == "enc" else 0)
    ours = jax.jit(folding.folded(model).apply)(jax.device_put(folded), images)
    np.testing.assert_allclose(ours.logits, expected.logits, atol=1e-4)
    plain = jax.jit(folding.with_common(model, forms=Forms("plain")).apply)(variables, images)
    np.testing.assert_allclose(plain.logits, expected.logits, atol=1e-4)


def test_folded_layout_is_the_one_the_model_expects():
    model, variables = small.random_model("mmseg", "psp", "jpu")
    shapes = jax.eval_shape(
        folding.folded(model).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    folded = folding.fold(variables)
    folded["batch_stats"] or folded.pop("batch_stats")
    assert jax.tree.map(lambda x: x.shape, folded) == jax.tree.map(lambda x: x.shape, shapes)
