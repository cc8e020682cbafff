"""Narrow mmseg models against real mmsegmentation: the wiring of every head, in seconds.

The published widths are the matter of `test_mmseg.py`.
"""

import jax
import numpy as np
import oracle
import pytest
import small
import torch

from fastfcn_jax import models
from fastfcn_jax.convert import convert, mmseg_names

# Odd, and 1/8 of the width holds ASPP's widest dilation (36).
IMAGES = np.random.default_rng(0).normal(size=(1, 97, 331, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("head", "neck"),
    [
        (head, neck)
        for neck in ("jpu", "none")
        for head in small.D8
        if (head, neck) != ("fcn", "jpu")
    ],
)
def test_logits_are_those_of_mmseg(head, neck):
    reference = small.mmseg_model(head, neck)
    model = models.build(small.config(head, neck).model, 19)
    variables = jax.device_put(mmseg_names.to_flax(oracle.tensors_of(reference)))
    ours = jax.jit(lambda v, x: model.apply(v, x, auxiliary=True))(variables, IMAGES)
    with torch.no_grad():
        features = reference.extract_feat(oracle.to_torch(IMAGES))
        logits = reference.decode_head(features)
        auxiliary = reference.auxiliary_head(features)
    logits, se = logits if isinstance(logits, tuple) else (logits, None)
    theirs = {"logits": logits, "auxiliary": auxiliary, "se": se}
    for name, expected in theirs.items():
        assert (getattr(ours, name) is None) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(
                getattr(ours, name), oracle.to_numpy(expected), atol=1e-4, err_msg=name
            )
    assert np.std(ours.logits) > 0.3  # logits that differ, or an error would not be seen


@pytest.mark.slow
@pytest.mark.parametrize("neck", ["jpu", "none"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("ResNet", {"stem": "plain"}), ("ResNetV1d", {"average_downsample": True})],
)
def test_other_backbones_of_mmseg_convert(tmp_path, kind, changes, neck):
    """A file alone: stem and shortcuts follow from names and shapes."""
    reference = small.mmseg_model("psp", neck, type=kind)
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "a.pth")
    converted = convert.read(tmp_path / "a.pth")
    assert {key: converted.config.model[key] for key in changes} == changes
    model = models.build(converted.config.model, 19)
    images = IMAGES[:, :97, :131]
    variables = jax.device_put(converted.variables)
    ours = jax.jit(lambda v, x: model.apply(v, x, auxiliary=True))(variables, images)
    with torch.no_grad():
        features = reference.extract_feat(oracle.to_torch(images))
        logits = reference.decode_head(features)
        auxiliary = reference.auxiliary_head(features)
    for found, expected in ((ours.logits, logits), (ours.auxiliary, auxiliary)):
        np.testing.assert_allclose(found, oracle.to_numpy(expected), atol=1e-4)
