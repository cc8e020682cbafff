"""Narrow models of the lineages with random weights: real names and structure, low memory."""

import functools

import jax
import numpy as np
import oracle
from flax import traverse_util

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.convert import fit, mmseg_names, official_names

WIDTH = 8  # of layer1's 3x3 convolutions; 64 in the published models
CHANNELS = 16  # of neck and heads; 512 in the published models
D8 = {"psp": "pspnet", "aspp": "deeplabv3", "enc": "encnet", "fcn": "fcn"}


def config(head: str, neck: str, lineage: str = "mmseg", data: str = "cityscapes", **model):
    """The configuration of a narrow model."""
    c = get_config()
    c.data.name = data
    c.model.update(
        lineage=lineage,
        head=head,
        neck=neck,
        output_stride=8 if neck == "none" or lineage == "paddleseg" else 32,
        base_width=WIDTH,
        neck_channels=64 if neck == "jpu_x" else CHANNELS,  # half must divide into 32 groups
        head_channels=CHANNELS,
        auxiliary_channels=WIDTH,
        se_branch=head == "enc",
        **model,
    )
    return c


def mmseg_parts(head: str, neck: str, num_classes: int = 19, width=WIDTH, channels=CHANNELS):
    """The overrides that make mmseg's published configuration as narrow as ours, by part."""
    widths = [4 * width * 2**stage for stage in range(4)]
    head_input = 4 * channels if neck == "jpu" else widths[3]
    parts = {
        "backbone": {"base_channels": width, "stem_channels": width},
        "decode_head": {
            "in_channels": [*widths[1:3], head_input] if head == "enc" else head_input,
            "channels": channels,
            "num_classes": num_classes,
        },
        "auxiliary_head": {
            "in_channels": widths[2],
            "channels": width,
            "num_classes": num_classes,
        },
    }
    if neck == "jpu":
        parts["neck"] = {"in_channels": tuple(widths[1:]), "mid_channels": channels}
    return parts


def mmseg_model(head: str, neck: str, num_classes: int = 19, **backbone):
    """The mmseg model of `config(head, neck)`, with weights and statistics seeded by name.

    backbone: overrides of its backbone, such as its type.
    """
    if neck == "jpu":
        name = f"fastfcn/fastfcn_r50-d32_jpu_{head}_4xb2-80k_cityscapes-512x1024"
    else:
        name = f"{D8[head]}/{D8[head]}_r50-d8_4xb2-80k_cityscapes-512x1024"
    shipped = oracle.mmseg_config(name)
    parts = mmseg_parts(head, neck, num_classes)
    parts["backbone"].update(backbone)
    return oracle.randomize(oracle.build_mmseg(shipped, **parts))


def variables(model, num_classes: int, seed: int = 0) -> dict:
    """Random variables of `config.model`, seeded by their mmsegmentation names."""
    template = fit.template(model, num_classes)
    stand_ins = {path: np.broadcast_to(np.float32(0), s.shape) for path, s in template.items()}
    shapes = mmseg_names.from_flax(traverse_util.unflatten_dict(stand_ins))
    return mmseg_names.to_flax(
        {n: oracle.random_tensor(n, t.shape, seed) for n, t in shapes.items()}
    )


@functools.cache
def official_tensors(head: str, neck: str, num_classes: int = 59) -> dict[str, np.ndarray]:
    """A state dict in the official code's format, including `fc` and counters."""
    model = config(head, neck, "official").model
    tensors = fit.to_tensors(variables(model, num_classes), "official", step=0)
    weight, bias = official_names.IGNORED
    rng = np.random.default_rng(0)
    tensors[weight] = rng.random(tensors[weight].shape, np.float32)
    tensors[bias] = rng.random(1000, np.float32)
    return tensors


def random_model(lineage: str, head: str, neck: str, num_classes: int = 7, **changes):
    """A Linen module wide enough to use every optimised form, and its random variables."""
    model = config(head, neck, lineage, **changes).model
    model.backbone = "resnet18" if lineage == "mmseg" else "resnet50"
    model.update(base_width=16, neck_channels=64, head_channels=64, auxiliary_channels=16)
    model.update(changes)
    return models.build(model, num_classes), jax.device_put(variables(model, num_classes))
