"""FastFCN's networks in the three lineages; `build` and `scaling` alone read configs here."""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from fastfcn_jax.config import schema
from fastfcn_jax.errors import UserError
from fastfcn_jax.models.heads import HEADS, FCNHead
from fastfcn_jax.models.jpu import JPU, JPUX
from fastfcn_jax.models.layers import Common, kaiming_fan_out, paddle_normal, torch_uniform
from fastfcn_jax.models.ops.forms import Forms
from fastfcn_jax.models.resnet import ResNet
from fastfcn_jax.models.segmentor import (
    IMAGENET,
    Outputs,
    Scaling,
    Segmentor,
    normalize,
    two_classes,
)

__all__ = [
    "IMAGENET",
    "Outputs",
    "Scaling",
    "Segmentor",
    "build",
    "is_one_channel",
    "normalize",
    "scaling",
    "two_classes",
]


def build(
    config: ConfigDict,
    num_classes: int,
    *,
    axis_name: str | None = None,
) -> Segmentor:
    """Builds the model that `config` (an experiment's `config.model`) describes.

    num_classes: of the data set; 2 for a one-channel model (`config.num_classes` is then 1).
    axis_name: mapped axis over which BatchNorm takes its statistics in training.
    Raises UserError for a combination that no reference has.
    """
    schema.check_model(config)
    common = Common(
        align_corners=config.lineage == "official",
        kernel_init=_KERNEL_INIT[config.lineage],
        narrow_classifier=config.lineage == "mmseg",
        paddle_start=config.lineage == "paddleseg",
        dtype=jnp.dtype(config.precision),
        axis_name=axis_name,
        forms=Forms(*schema.forms(config.forms)),
    )
    auxiliary_head = None
    one_channel = is_one_channel(config, num_classes)
    outputs = 1 if one_channel else num_classes
    if config.auxiliary:
        auxiliary_head = FCNHead(
            outputs,
            common,
            config.auxiliary_channels,
            config.dropout,
            drop_values=config.lineage == "paddleseg",
        )
    return Segmentor(
        backbone=_backbone(config, common),
        neck=_neck(config, common),
        decode_head=_head(config, common, outputs, num_classes),
        auxiliary_head=auxiliary_head,
        lateral=_lateral(config) if config.lateral else (),
        threshold=config.threshold if one_channel else None,
    )


def is_one_channel(config: ConfigDict, num_classes: int) -> bool:
    """Whether the model has one output for two classes, decided by a threshold.

    Raises UserError if there are more or fewer classes.
    """
    if config.num_classes != 1:
        return False
    if num_classes != 2:
        raise UserError(
            f"config.model.num_classes=1, one channel with a threshold, is for two classes, and "
            f"there are {num_classes}; set it to 0 to follow the data set."
        )
    return True


_KERNEL_INIT = {
    "mmseg": kaiming_fan_out,
    "official": torch_uniform,
    "paddleseg": paddle_normal,
}


def _lateral(config) -> tuple[str, str]:
    return ("c2", "c3") if config.lineage == "paddleseg" else ("c3", "c4")


def scaling(data: ConfigDict) -> Scaling:
    """How images are normalised, by `config.data`."""
    if not data.scaling:
        return IMAGENET
    mean, std = zip(*data.scaling, strict=True)
    return Scaling(mean, std)


def _backbone(config, common) -> ResNet:
    mmseg = config.lineage == "mmseg"
    half, full = config.base_width // 2, config.base_width
    dilated = config.output_stride == 8
    deep = (full, full, 2 * full) if config.lineage == "official" else (half, half, full)
    return ResNet(
        variant=config.backbone,
        common=common,
        base_width=full,
        stem_widths=deep if config.stem == "deep" else (full,),
        average_downsample=config.average_downsample,
        strides=(1, 2, 1, 1) if dilated else (1, 2, 2, 2),
        # mmseg's "d32" backbone dilates its strided stages as well; the official one does not.
        dilations=(1, 1, 2, 4) if dilated or mmseg else (1, 1, 1, 1),
        half_first=config.lineage != "paddleseg",
        zero_last_scale=mmseg,
        remat=config.remat,
    )


def _neck(config, common) -> nn.Module | None:
    if config.neck == "none":
        return None
    if config.neck == "jpu_x":
        return JPUX(config.neck_channels, common)
    return JPU(config.neck_channels, common, coarse_first=config.lineage != "mmseg")


def _head(config, common, outputs, num_classes) -> nn.Module:
    mmseg = config.lineage == "mmseg"
    dropout = config.dropout
    arguments = {}
    if config.head == "enc":
        plain = mmseg or config.neck == "none"
        if config.lineage == "paddleseg":
            dropout = 0.0
        arguments = {
            "kernel_size": 3 if plain else 1,
            "se_branch": config.se_branch,
            "lateral": config.lateral,
            "se_classes": num_classes,
        }
    elif config.head == "aspp":
        arguments = {"pool_last": not mmseg, "project": not mmseg}
    elif config.head == "fcn" and mmseg:
        arguments = {"num_convs": 2, "concat_input": True}
    return HEADS[config.head](outputs, common, config.head_channels, dropout, **arguments)
