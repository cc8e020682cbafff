"""Images of several sizes in one padded batch get the logits that each has alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from fastfcn_jax import models

pytestmark = pytest.mark.slow

SIZES = np.array([[61, 83], [104, 136]], np.int32)
PADDED = (104, 136)


@pytest.mark.parametrize(
    ("lineage", "head", "neck", "changes"),
    [
        ("mmseg", "psp", "jpu", {}),
        ("mmseg", "aspp", "none", {}),
        ("mmseg", "enc", "jpu", {}),
        ("mmseg", "enc", "jpu", {"lateral": True}),
        ("mmseg", "fcn", "none", {}),
        ("mmseg", "psp", "none", {"stem": "plain", "average_downsample": True}),
        ("official", "psp", "jpu_x", {}),
        ("official", "aspp", "jpu", {}),
        ("official", "enc", "none", {}),
        ("official", "fcn", "jpu_x", {}),
    ],
)
def test_padding_is_without_influence(lineage, head, neck, changes):
    model, variables = small.random_model(lineage, head, neck, **changes)
    # Noise in the padding: whatever stands there must not be read.
    images = np.random.default_rng(0).normal(size=(2, *PADDED, 3)).astype(np.float32)
    run = jax.jit(lambda images, size: model.apply(variables, images, size=size, auxiliary=True))
    batch = run(images, SIZES)
    h, w = SIZES[0]
    alone = run(images[:1, :h, :w], None)
    for name in ("logits", "auxiliary"):
        expected = getattr(alone, name)
        ours = getattr(batch, name)[:1, : expected.shape[1], : expected.shape[2]]
        np.testing.assert_allclose(ours, expected, atol=1e-4, err_msg=name)
    if head == "enc":
        np.testing.assert_allclose(batch.se[0], alone.se[0], atol=1e-4)


def test_normalize_blanks_what_lies_outside():
    images = np.full((2, 4, 5, 3), 200, np.uint8)
    ours = models.normalize(jnp.asarray(images), jnp.asarray([[4, 5], [2, 3]], jnp.int32))
    expected = (200 - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(ours[0, 3, 4], expected, rtol=1e-6)
    assert not np.any(ours[1, 2:])
    assert not np.any(ours[1, :, 3:])
    assert np.all(np.asarray(ours[1, :2, :3]) > 1)


def test_size_is_refused_in_training():
    model, variables = small.random_model("mmseg", "fcn", "none")
    with pytest.raises(ValueError, match="evaluation"):
        model.apply(variables, jnp.zeros((1, 32, 32, 3)), train=True, size=jnp.ones((1, 2), int))
