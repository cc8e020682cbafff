"""Every mmseg model against real mmsegmentation, stage by stage, with random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
from stages import our_stages

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.convert import mmseg_names

pytestmark = pytest.mark.slow
HEADS = ("psp", "aspp", "enc")
D8 = {
    "psp": "pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024",
    "aspp": "deeplabv3/deeplabv3_r50-d8_4xb2-80k_cityscapes-512x1024",
    "enc": "encnet/encnet_r50-d8_4xb2-80k_cityscapes-512x1024",
    "fcn": "fcn/fcn_r50-d8_4xb2-80k_cityscapes-512x1024",
}
# Odd, even (where 'SAME' padding would differ), large enough for ASPP's dilations, and tiny
# (pooling to 6x6 enlarges there).
SIZES = ((97, 131), (128, 192), (320, 344), (33, 40))


@functools.lru_cache(maxsize=1)  # each holds two networks
def pair(head: str, neck: str, depth: int = 50, num_classes: int = 19):
    """Returns (real mmseg model, our model, its variables): equal weights."""
    if neck == "jpu":
        config = oracle.mmseg_config(
            f"fastfcn/fastfcn_r50-d32_jpu_{head}_4xb2-80k_cityscapes-512x1024"
        )
    else:
        config = oracle.mmseg_config(D8[head])
    classes = {"num_classes": num_classes}
    reference = oracle.build_mmseg(
        config, backbone={"depth": depth}, decode_head=classes, auxiliary_head=classes
    )
    oracle.randomize(reference)
    ours = build(head, neck, depth, num_classes)
    variables = mmseg_names.to_flax(oracle.tensors_of(reference))
    template = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, template)
    return reference, ours, jax.device_put(variables)


def build(head: str, neck: str, depth: int = 50, num_classes: int = 19):
    config = get_config().model
    config.update(
        backbone=f"resnet{depth}",
        head=head,
        neck=neck,
        se_branch=head == "enc",
        output_stride=32 if neck == "jpu" else 8,
    )
    return models.build(config, num_classes)


def reference_stages(reference, images):
    """The same from mmsegmentation."""
    with torch.no_grad():
        backbone, x = reference.backbone, oracle.to_torch(images)
        stages = {"stem": (x := backbone.stem(x))}
        x = backbone.maxpool(x)
        for i in range(1, 5):
            stages[f"c{i + 1}"] = x = getattr(backbone, f"layer{i}")(x)
        pyramid = tuple(stages[f"c{i + 1}"] for i in range(1, 5) if i - 1 in backbone.out_indices)
        if reference.with_neck:
            pyramid = reference.neck(pyramid)
            stages["neck"] = pyramid[-1]
        logits = reference.decode_head(pyramid)
        if isinstance(logits, tuple):
            logits, stages["se"] = logits
        stages["logits"] = logits
        stages["auxiliary"] = reference.auxiliary_head(pyramid)
    return {name: oracle.to_numpy(stage) for name, stage in stages.items()}


def images_of(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(height).normal(size=(batch, height, width, 3)).astype(np.float32)


def assert_stages_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():  # in order: the first one to differ names the culprit
        error = np.abs(ours[name] - value).max()
        assert error <= 1e-4, f"{name}: error {error:.2e} of {np.abs(value).max():.2f}"


@pytest.mark.parametrize(
    ("height", "width", "num_classes"),
    [(*size, 150 if size == SIZES[-1] else 19) for size in SIZES],  # ADE20K's, Cityscapes'
)
@pytest.mark.parametrize("head", HEADS)
def test_jpu_models(head, height, width, num_classes):
    reference, ours, variables = pair(head, "jpu", num_classes=num_classes)
    images = images_of(height, width)
    assert_stages_equal(our_stages(ours, variables, images), reference_stages(reference, images))


@pytest.mark.usefixtures("gpu_forms")
@pytest.mark.parametrize(("height", "width"), [(97, 131), (320, 344)])
def test_jpu_model_in_the_forms_of_a_gpu(height, width):
    """ASPP has all of them: dilated branches in bands too, of more and of fewer rows than taps."""
    reference, ours, variables = pair("aspp", "jpu")
    images = images_of(height, width)
    assert_stages_equal(our_stages(ours, variables, images), reference_stages(reference, images))


@pytest.mark.parametrize("head", [*HEADS, "fcn"])
def test_dilated_twins(head):
    reference, ours, variables = pair(head, "none")
    images = images_of(128, 192)
    assert_stages_equal(our_stages(ours, variables, images), reference_stages(reference, images))


def test_resnet101():
    reference, ours, variables = pair("psp", "jpu", depth=101)
    images = images_of(97, 131)
    assert_stages_equal(our_stages(ours, variables, images), reference_stages(reference, images))
