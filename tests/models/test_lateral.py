"""The Enc head with `lateral`, against mmsegmentation's `add_lateral`."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import small
import torch

from fastfcn_jax import models
from fastfcn_jax.convert import detect, fit, mmseg_names

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("neck", ["jpu", "none"])
def test_logits_are_mmsegs(neck):
    """With a JPU, c4 is upsampled to the head's map; without, all maps have one size."""
    folder = "fastfcn/fastfcn_r50-d32_jpu_enc" if neck == "jpu" else "encnet/encnet_r50-d8"
    parts = small.mmseg_parts("enc", neck)
    parts["decode_head"]["add_lateral"] = True
    shipped = oracle.mmseg_config(f"{folder}_4xb2-80k_cityscapes-512x1024")
    reference = oracle.randomize(oracle.build_mmseg(shipped, **parts))
    tensors = oracle.tensors_of(reference)
    config = small.config("enc", neck, lateral=True)
    found = detect.of_tensors(tensors)
    detect.refuse_differences(found, config.model, 19)
    assert found.lateral
    variables = mmseg_names.to_flax(tensors)
    images = np.random.default_rng(0).normal(size=(2, 97, 131, 3)).astype(np.float32)
    ours = jax.jit(models.build(config.model, 19).apply)(variables, images)
    with torch.no_grad():
        pyramid = reference.extract_feat(oracle.to_torch(images))
        logits, se = reference.decode_head(pyramid)
    np.testing.assert_allclose(ours.logits, oracle.to_numpy(logits), atol=1e-4)
    np.testing.assert_allclose(ours.se, se, atol=1e-4)


@pytest.mark.parametrize("lineage", ["mmseg", "official"])
def test_names_go_there_and_back(lineage):
    config = small.config("enc", "none", lineage, lateral=True)
    variables = small.variables(config.model, 19)
    tensors = fit.to_tensors(variables, lineage, step=0)
    if lineage == "official":
        assert tensors["head.connect.1.0.weight"].shape[1] == 4 * small.WIDTH * 4
        assert tensors["head.fusion.0.weight"].shape[1] == 3 * small.CHANNELS
    assert detect.of_tensors(tensors).lateral
    again = dict(jax.tree_util.tree_leaves_with_path(mmseg_names.to_flax(_mmseg(tensors, lineage))))
    for path, value in jax.tree_util.tree_leaves_with_path(variables):
        np.testing.assert_array_equal(again[path], value)


def _mmseg(tensors, lineage):
    from fastfcn_jax.convert import official_names

    if lineage == "mmseg":
        return {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    names = official_names.to_mmseg_names(tensors)
    kept = {n: ours for n, ours in names.items() if ours and not n.endswith("batches_tracked")}
    return {ours: tensors[n] for n, ours in kept.items()}


def test_a_model_without_it_has_no_such_weights():
    plain, fused = (small.config("enc", "none", lateral=x).model for x in (False, True))
    more = fit.template(fused, 19).keys() - fit.template(plain, 19).keys()
    assert {path[2] for path in more} == {"lateral_convs_0", "lateral_convs_1", "fusion"}
    shapes = jax.eval_shape(
        models.build(fused, 19).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    kernel = shapes["params"]["decode_head"]["fusion"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 3 * small.CHANNELS, small.CHANNELS)
