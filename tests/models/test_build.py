"""Building from a config: initialisation statistics of both references, refused combinations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.errors import UserError
from fastfcn_jax.models import resnet

SMALL = {"base_width": 16, "neck_channels": 64, "head_channels": 64, "auxiliary_channels": 32}


@functools.cache
def initial(lineage: str) -> dict:
    """Parameters of an Enc model with one block a stage, drawn by its own initialisers."""
    config = get_config().model
    config.update(SMALL, lineage=lineage, backbone="resnet50", head="enc", se_branch=True)
    model = models.build(config, 19)
    with pytest.MonkeyPatch.context() as patch:
        short = resnet.BLOCKS["resnet50"]._replace(counts=(1, 1, 1, 1))
        patch.setitem(resnet.BLOCKS, "resnet50", short)
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


def is_uniform(values, limit):
    assert abs(values).max() <= limit
    np.testing.assert_allclose(values.std(), limit / 3**0.5, rtol=0.1)


def fan_in(kernel):
    return np.prod(kernel.shape[:-1])


@pytest.mark.slow
def test_mmseg_starts_from_kaiming_normal_fan_out():
    for name, value in initial("mmseg").items():
        if value.ndim == 4 and "conv_seg" not in name:
            expected = (2 / (value.shape[0] * value.shape[1] * value.shape[3])) ** 0.5
            np.testing.assert_allclose(value.std(), expected, rtol=0.1, err_msg=name)
            if value.size > 5000:  # not truncated: some lie beyond three deviations
                assert abs(value).max() > 3 * expected, name


@pytest.mark.slow
def test_mmseg_classifiers_start_narrow_and_residual_branches_at_zero():
    params = initial("mmseg")
    for head in ("decode_head", "auxiliary_head"):
        np.testing.assert_allclose(params[f"{head}/conv_seg/kernel"].std(), 0.01, rtol=0.1)
        assert not params[f"{head}/conv_seg/bias"].any()
    for name, value in params.items():
        if name.endswith("scale") and "encoding_0" not in name:
            assert np.all(value == (0 if name.endswith("bn3/scale") else 1)), name


@pytest.mark.slow
def test_official_heads_start_from_pytorchs_defaults():
    for name, value in initial("official").items():
        if name.startswith("backbone"):
            if value.ndim == 4:
                expected = (2 / (value.shape[0] * value.shape[1] * value.shape[3])) ** 0.5
                np.testing.assert_allclose(value.std(), expected, rtol=0.1, err_msg=name)
            else:
                assert np.all(value == (0 if name.endswith("bias") else 1)), name
        elif value.ndim == 4:
            is_uniform(value, fan_in(value) ** -0.5)
    params = initial("official")
    for head, width in (("decode_head", 64), ("auxiliary_head", 32)):
        bias = params[f"{head}/conv_seg/bias"]
        assert 0 < abs(bias).max() <= width**-0.5


@pytest.mark.slow
@pytest.mark.parametrize("lineage", ["mmseg", "official"])
def test_encoding_and_linear_layers(lineage):
    params = initial(lineage)
    encoding = "decode_head/enc_module/encoding_0"
    is_uniform(params[f"{encoding}/codewords"], (32 * 64) ** -0.5)
    scale = params[f"{encoding}/scale"]
    assert np.all((scale > -1) & (scale < 0))
    assert scale.min() < -0.7
    for layer in ("enc_module/fc_0", "se_layer"):
        is_uniform(params[f"decode_head/{layer}/kernel"], 64**-0.5)
        assert 0 < abs(params[f"decode_head/{layer}/bias"]).max() <= 64**-0.5


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"neck": "jpu_x"}, "neck"),
        ({"neck": "none"}, "output_stride"),
        ({"output_stride": 8}, "output_stride"),
        ({"lineage": "official", "backbone": "resnet18"}, "lineage"),
        ({"se_branch": True}, "se_branch"),
        ({"lateral": True}, "lateral"),
    ],
)
def test_combinations_without_a_reference_are_refused(changes, key):
    config = get_config().model
    config.update(changes)
    with pytest.raises(UserError, match=key):
        models.build(config, 19)


@pytest.mark.slow
def test_auxiliary_head_runs_only_where_it_is_needed():
    config = get_config().model
    config.update(SMALL, backbone="resnet18", head="fcn", dropout=0.0)
    model = models.build(config, 5)
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = functools.partial(jax.eval_shape, model.apply, variables, images)
    assert run().auxiliary is None
    asked = jax.eval_shape(lambda v: model.apply(v, images, auxiliary=True), variables)
    assert asked.auxiliary.shape == (2, 2, 2, 5)
    assert asked.logits.shape == (2, 4, 4, 5)
