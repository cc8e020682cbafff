"""ResNets of torchvision, timm and mmsegmentation against ours: features and a training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch

from fastfcn_jax.convert import backbone_names, mmseg_names
from fastfcn_jax.models import resnet
from fastfcn_jax.models.layers import Common

COUNTS = (1, 1, 2, 2)  # blocks of the stages: fewer than published, and every kind of them
SIZE = (43, 62)  # odd and even after halvings
SMALL = (27, 38)  # for float64, which is slow
STRIDED = {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)}
DILATED = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
OF_JPU = {"strides": (1, 2, 2, 2), "dilations": (1, 1, 2, 4)}  # mmseg's "d32"
PLAIN = (64,)
TORCHVISION = {
    "resnet18": ("BasicBlock", {}),
    "resnet50": ("Bottleneck", {}),
    "resnext50_32x4d": ("Bottleneck", {"groups": 32, "width_per_group": 4}),
    "wide_resnet50_2": ("Bottleneck", {"width_per_group": 128}),
}


def torchvision_net(name: str, dilated: bool):
    models = oracle.import_torchvision().resnet
    block, arguments = TORCHVISION[name]
    replaced = [False, dilated, dilated]
    return models.ResNet(
        getattr(models, block), COUNTS, replace_stride_with_dilation=replaced, **arguments
    )


def timm_net(name: str, dilated: bool):
    stride = 8 if dilated else 32
    net = oracle.import_timm().create_model(name, layers=COUNTS, output_stride=stride)
    if dilated and "d" in name.removeprefix("resnet"):
        # There timm averages at stride 1 too; mmsegmentation and Paddle do not.
        for stage in (net.layer3, net.layer4):
            stage[0].downsample[0] = torch.nn.Identity()
    return net


def mmseg_net(kind: str, depth: int, **arguments):
    oracle.import_mmseg()
    from mmseg.models import backbones

    class Short(getattr(backbones, kind)):
        arch_settings = {  # noqa: RUF012
            depth: (block, COUNTS)
            for depth, (block, _) in getattr(backbones, kind).arch_settings.items()
        }

    return Short(
        depth=depth, base_channels=16, stem_channels=16, contract_dilation=True, **arguments
    )


# name: (reference, our variant, stem widths, average_downsample, strides and dilations)
CASES = {
    "torchvision resnet18": (
        functools.partial(torchvision_net, "resnet18", False),
        *("resnet18", PLAIN, False, STRIDED),
    ),
    "torchvision resnet50": (
        functools.partial(torchvision_net, "resnet50", False),
        *("resnet50", PLAIN, False, STRIDED),
    ),
    "torchvision resnet50, stride 8": (
        functools.partial(torchvision_net, "resnet50", True),
        *("resnet50", PLAIN, False, DILATED),
    ),
    "torchvision resnext50_32x4d": (
        functools.partial(torchvision_net, "resnext50_32x4d", False),
        *("resnext50_32x4d", PLAIN, False, STRIDED),
    ),
    "torchvision wide_resnet50_2, stride 8": (
        functools.partial(torchvision_net, "wide_resnet50_2", True),
        *("wide_resnet50_2", PLAIN, False, DILATED),
    ),
    "timm resnet18": (
        functools.partial(timm_net, "resnet18", False),
        *("resnet18", PLAIN, False, STRIDED),
    ),
    "timm resnet18d": (
        functools.partial(timm_net, "resnet18d", False),
        *("resnet18", (32, 32, 64), True, STRIDED),
    ),
    "timm resnet50c, stride 8": (
        functools.partial(timm_net, "resnet50c", True),
        *("resnet50", (32, 32, 64), False, DILATED),
    ),
    "timm resnet50d": (
        functools.partial(timm_net, "resnet50d", False),
        *("resnet50", (32, 32, 64), True, STRIDED),
    ),
    "timm resnet50d, stride 8": (
        functools.partial(timm_net, "resnet50d", True),
        *("resnet50", (32, 32, 64), True, DILATED),
    ),
    "timm resnet50s": (  # the official code's stem
        functools.partial(timm_net, "resnet50s", False),
        *("resnet50", (64, 64, 128), False, STRIDED),
    ),
    "timm resnext50d_32x4d, stride 8": (
        functools.partial(timm_net, "resnext50d_32x4d", True),
        *("resnext50_32x4d", (32, 32, 64), True, DILATED),
    ),
    "mmseg ResNet-18, stride 8": (
        functools.partial(mmseg_net, "ResNet", 18, **DILATED),
        *("resnet18", (16,), False, DILATED),
    ),
    "mmseg ResNetV1d-18, stride 8": (
        functools.partial(mmseg_net, "ResNetV1d", 18, **DILATED),
        *("resnet18", (8, 8, 16), True, DILATED),
    ),
    "mmseg ResNetV1d-50 of a JPU": (
        functools.partial(mmseg_net, "ResNetV1d", 50, **OF_JPU),
        *("resnet50", (8, 8, 16), True, OF_JPU),
    ),
    "mmseg ResNeXt-50 of a JPU": (
        functools.partial(mmseg_net, "ResNeXt", 50, groups=32, base_width=1, **OF_JPU),
        *("resnext50_32x4d", (16,), False, OF_JPU),
    ),
}


def variables_of(tensors: dict[str, torch.Tensor], dtype) -> dict:
    """Our backbone's variables: weights, or gradients under the same names."""
    arrays = {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
    own = {f"backbone.{n}": a for n, a in backbone_names.to_mmseg_names(arrays).items()}
    flax = mmseg_names.to_flax(own, dtype)
    return {kind: flax[kind].get("backbone", {}) for kind in flax}


def features(net, x):
    """c2 to c5."""
    if hasattr(net, "out_indices"):
        return net(x)
    x = net.bn1(net.conv1(x))
    x = net.maxpool(torch.relu(x))
    pyramid = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        pyramid.append(x := stage(x))
    return pyramid


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    for name, blocks in resnet.BLOCKS.items():
        monkeypatch.setitem(resnet.BLOCKS, name, blocks._replace(counts=COUNTS))


def ours(variant, stem_widths, average, geometry, dtype=jnp.float32):
    width = 16 if 16 in stem_widths else 64
    return resnet.ResNet(
        variant,
        Common(dtype=dtype),
        base_width=width,
        stem_widths=stem_widths,
        average_downsample=average,
        **geometry,
    )


def close(found, expected, tolerance, name):
    scale = np.abs(expected).max()
    error = np.abs(np.asarray(found) - expected).max()
    assert error <= tolerance * scale, f"{name}: error {error:.2e} of {scale:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_features(name):
    build, *arguments = CASES[name]
    net = build()
    oracle.randomize(net)
    model = ours(*arguments)
    images = np.random.default_rng(0).normal(size=(2, *SIZE, 3)).astype(np.float32)
    found = jax.jit(model.apply)(variables_of(net.state_dict(), np.float32), images)
    with torch.no_grad():
        expected = features(net, oracle.to_torch(images))
    assert len(found) == 4
    for level, (x, y) in enumerate(zip(found, expected, strict=True), 2):
        close(x, oracle.to_numpy(y), 1e-5, f"c{level}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "torchvision resnet18",
        "torchvision resnet50, stride 8",
        "timm resnet18d",
        "timm resnet50c, stride 8",
        "timm resnet50d, stride 8",
        "mmseg ResNetV1d-50 of a JPU",
        "mmseg ResNeXt-50 of a JPU",
    ],
)
def test_training_step(name):
    """Features, BatchNorm's statistics and gradients of one pass in float64.

    In float32 a ReLU that stands exactly at its edge would fall to either side.
    """
    build, *arguments = CASES[name]
    net = build().double()
    oracle.randomize(net)
    net.train()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *SMALL, 3))
    before = variables_of(net.state_dict(), np.float64)
    pyramid = features(net, oracle.to_torch(images))
    weights = [rng.normal(size=oracle.to_numpy(x).shape) for x in pyramid]
    sum((x * oracle.to_torch(w)).mean() for x, w in zip(pyramid, weights, strict=True)).backward()
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model = ours(*arguments, dtype=jnp.float64)

        def loss(params):
            given = {"params": params, "batch_stats": before["batch_stats"]}
            pyramid, state = model.apply(
                given, jnp.asarray(images), train=True, mutable=["batch_stats"]
            )
            total = sum((x * w).mean() for x, w in zip(pyramid, weights, strict=True))
            return total, (pyramid, state["batch_stats"])

        (_, (found, stats)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            before["params"]
        )
        found, stats, gradients = jax.tree.map(np.asarray, (found, stats, gradients))
    for level, (x, y) in enumerate(zip(found, pyramid, strict=True), 2):
        close(x, oracle.to_numpy(y), 1e-9, f"c{level}")
    wanted = variables_of(
        {n: p.grad for n, p in net.named_parameters() if p.grad is not None}, np.float64
    )
    after = variables_of(net.state_dict(), np.float64)
    assert jax.tree.structure(gradients) == jax.tree.structure(wanted["params"])
    for tree, reference in ((stats, after["batch_stats"]), (gradients, wanted["params"])):
        jax.tree_util.tree_map_with_path(
            lambda path, x, y: close(x, y, 1e-7, jax.tree_util.keystr(path)), tree, reference
        )
