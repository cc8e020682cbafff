"""ImageNet backbones by name against the packages that publish them, and against our models."""

import functools
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
from flax import traverse_util

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.convert import backbone_names, detect, mmseg_names
from fastfcn_jax.weights import registry
from fastfcn_jax.weights.imagenet import BACKBONES, DEFAULTS

BY_NAME = {entry.name: entry for entry in BACKBONES}
TIMM = [entry for entry in BACKBONES if entry.name.startswith("timm/")]
TORCHVISION = [entry for entry in BACKBONES if entry.name.startswith("torchvision/")]


def test_openmmlabs_addresses():
    folder = Path(importlib.util.find_spec("mmengine").origin).parent / "hub"
    hub = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in ("openmmlab", "mmcls")
    }
    for depth in (18, 50, 101):
        assert BY_NAME[f"resnet{depth}_v1c"].address == hub["openmmlab"][f"resnet{depth}_v1c"]
    for depth in (18, 34, 50, 101, 152):
        assert BY_NAME[f"resnet{depth}_v1"].address == hub["mmcls"][f"resnet{depth}"]
    for depth in (50, 101, 152):
        assert BY_NAME[f"resnet{depth}_v1d"].address == hub["mmcls"][f"resnet{depth}_v1d"]


def test_torchvisions_addresses():
    published = oracle.import_torchvision()
    assert len(TORCHVISION) == 12
    for entry in TORCHVISION:
        name, _, version = entry.name.partition("/")[2].partition("_v")
        weights = published.get_model_weights(name)[f"IMAGENET1K_V{version or 1}"]
        assert entry.address == weights.url
        assert entry.source.endswith(f"IMAGENET1K_V{version or 1}")


def test_timms_weights():
    """Repository, licence and pixels; an architecture alone means timm's own default."""
    timm = oracle.import_timm()
    for entry in TIMM:
        published = timm.get_pretrained_cfg(entry.name.removeprefix("timm/"))
        assert (
            entry.address == f"hf://timm/{published.architecture}.{published.tag}/model.safetensors"
        )
        assert published.hf_hub_id == entry.name
        assert entry.licence == published.license
        assert published.mean == timm.data.IMAGENET_DEFAULT_MEAN
        assert published.std == timm.data.IMAGENET_DEFAULT_STD
    for name, default in DEFAULTS.items():
        tag = timm.get_pretrained_cfg(name.removeprefix("timm/")).tag
        assert registry.find(name).name == default == f"{name}.{tag}"


@functools.cache
def shapes_of(keys: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the backbone of `config.model` with these keys (as JSON)."""
    model = get_config().model
    model.update(json.loads(keys))
    built = models.build(model, 2).backbone
    variables = jax.eval_shape(built.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    flat = traverse_util.flatten_dict(
        {kind: {"backbone": tree} for kind, tree in variables.items()}
    )
    return {mmseg_names.torch_name(path, flat): leaf.shape for path, leaf in flat.items()}


def network(entry) -> torch.nn.Module:
    """The publisher's own network, without memory for its weights."""
    source, _, name = entry.name.partition("/")
    with torch.device("meta"):
        if source == "timm":
            return oracle.import_timm().create_model(name)
        return getattr(oracle.import_torchvision(), name.partition("_v")[0])()


def assert_fits(entry):
    tensors = {
        name: np.broadcast_to(np.float32(0), tensor.shape)
        for name, tensor in network(entry).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    own = backbone_names.to_mmseg_names(tensors)
    found = detect.backbone({name: tensor.shape for name, tensor in own.items()})
    expected = {key: value for key, value in entry.model.items() if key != "lineage"}
    assert found == {**expected, "base_width": 64}
    shapes = {}
    for name, tensor in own.items():
        shape = tensor.shape
        shapes[f"backbone.{name}"] = (*shape[2:], *shape[1::-1]) if len(shape) == 4 else shape
    assert shapes == shapes_of(json.dumps(dict(entry.model)))


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18d.ra2_in1k"])
def test_a_network_of_the_publisher_fits(name):
    assert_fits(BY_NAME[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(entry.name for entry in TORCHVISION if not entry.name.endswith("_v2")),
        *DEFAULTS.values(),
    ],
)
def test_every_network_of_the_publishers_fits(name):
    """Names and shapes at full width, every tensor but the ImageNet classifier's."""
    assert_fits(BY_NAME[name])


def test_every_backbone_builds_and_is_found_by_its_model():
    for entry in BACKBONES:
        model = get_config().model
        model.update(entry.model)
        models.build(model, 2)
        assert entry.name in registry.fitting(model)
        model.base_width = 16
        assert registry.fitting(model) == []


def test_the_default_model_has_openmmlabs_backbone():
    assert registry.fitting(get_config().model)[0] == "resnet50_v1c"
