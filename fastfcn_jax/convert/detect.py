"""Recognises the model of a state dict from its names and shapes alone."""

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.convert import official_names, paddleseg_names
from fastfcn_jax.errors import UserError
from fastfcn_jax.models.resnet import BLOCKS, BasicBlock, Bottleneck

Shapes = Mapping[str, tuple[int, ...]]


class Detected(NamedTuple):
    """The keys of `config.model` that weights determine (0 or "" if absent), and the class count.

    Dilation is not among them: it does not change the weights.
    """

    lineage: str
    backbone: str
    stem: str
    average_downsample: bool
    base_width: int
    neck: str
    neck_channels: int
    head: str
    head_channels: int
    se_branch: bool
    lateral: bool
    auxiliary: bool
    auxiliary_channels: int
    num_classes: int

    def __str__(self) -> str:
        plain, average = self.stem == "plain", self.average_downsample
        kind = " (plain stem)" * plain + " (shortcuts average)" * average
        head = self.head + " with SE branch" * self.se_branch + ", lateral" * self.lateral
        parts = [self.backbone + kind, self.neck, head]
        text = f"{self.lineage} lineage, {' + '.join(p for p in parts if p != 'none')}"
        return f"{text}{', auxiliary head' * self.auxiliary}, {self.num_classes} classes"


def lineage(names: Iterable[str]) -> str:
    """The lineage that these names belong to: "mmseg", "official" or "paddleseg".

    Raises:
      UserError: they belong to neither, or to a backbone alone.
    """
    tops = {name.split(".")[0] for name in names}
    if tops >= paddleseg_names.MARKS:
        return "paddleseg"
    for top, head, found in (
        ("backbone", "decode_head", "mmseg"),
        ("pretrained", "head", "official"),
    ):
        if top in tops:
            if head not in tops:
                raise UserError(_BACKBONE_ALONE)
            return found
    if tops & {"layer1", "bb_0_0", "blocks"}:
        raise UserError(_BACKBONE_ALONE)
    listed = ", ".join(sorted(tops)[:8])
    raise UserError(
        "the names are neither mmsegmentation's (backbone., decode_head.) nor the official code's "
        f"(pretrained., head.) nor those of PaddleSeg's FastFCN; they start with: {listed}"
    )


_BACKBONE_ALONE = (
    "the file holds a backbone without a segmentation head; give it to training "
    "as --config.init.backbone=FILE"
)


def of_tensors(tensors: Mapping[str, np.ndarray]) -> Detected:
    """Recognises the model from a file's tensors under their own names.

    Raises:
      UserError: they are not a complete segmentation model of a known kind.
    """
    whose = lineage(tensors)
    names: Mapping[str, str | None] = {name: name for name in tensors}
    if whose == "official":
        names = official_names.to_mmseg_names(tensors)
    elif whose == "paddleseg":
        names = paddleseg_names.to_mmseg_names(tensors)
    return detect({names[n] or n: tensor.shape for n, tensor in tensors.items()}, whose)


def detect(shapes: Shapes, lineage: str) -> Detected:
    """Recognises the model from mmsegmentation-style names (see `official_names.to_mmseg_names`).

    Raises:
      UserError: the backbone is not a known ResNet, or the head is unknown.
    """
    auxiliary = shapes.get("auxiliary_head.convs.0.conv.weight")
    neck, neck_channels = _neck(shapes)
    head, head_channels = _head(shapes)
    classifier = shapes.get("decode_head.conv_seg.weight")
    if classifier is None:
        raise UserError(
            f"the file has no classifier (decode_head.conv_seg); {_seen(shapes, 'decode_head.')}"
        )
    return Detected(
        lineage=lineage,
        **backbone({name.removeprefix("backbone."): shape for name, shape in shapes.items()}),
        neck=neck,
        neck_channels=neck_channels,
        head=head,
        head_channels=head_channels,
        se_branch="decode_head.se_layer.weight" in shapes,
        lateral="decode_head.fusion.conv.weight" in shapes,
        auxiliary=auxiliary is not None,
        auxiliary_channels=0 if auxiliary is None else auxiliary[0],
        num_classes=classifier[0],
    )


def backbone(shapes: Shapes) -> dict[str, Any]:
    """The keys of `config.model` that a ResNet's entries (`layer1.0.conv1.weight`, ...) determine.

    Raises:
      UserError: no known ResNet has these blocks.
    """
    counts = tuple(_count(shapes, f"layer{stage}.{{}}.conv1.weight") for stage in (1, 2, 3, 4))
    block, base_width = BasicBlock, _axis(shapes, "layer1.0.conv1.weight", 0)
    widening = groups = 1
    if "layer1.0.conv3.weight" in shapes:
        block, base_width = Bottleneck, _axis(shapes, "layer1.0.conv3.weight", 0) // 4
        inner, per_group = (_axis(shapes, "layer1.0.conv2.weight", axis) for axis in (0, 1))
        widening, groups = inner // max(base_width, 1), inner // max(per_group, 1)
    found = (block, counts, widening, groups)
    name = next((name for name, blocks in BLOCKS.items() if tuple(blocks) == found), None)
    if name is None:
        wide = "" if widening == groups == 1 else f", {widening} times as wide, {groups} groups"
        raise UserError(
            f"the backbone is not a known ResNet: its stages have {counts} blocks{wide}"
        )
    return {
        "backbone": name,
        "stem": "plain" if "conv1.weight" in shapes else "deep",
        "average_downsample": "layer2.0.downsample.2.weight" in shapes,
        "base_width": base_width,
    }


def _axis(shapes: Shapes, name: str, axis: int) -> int:
    """A dimension of an entry; 0 if it does not have that many, or does not exist."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0


def _count(names: Container[str], pattern: str) -> int:
    count = 0
    while pattern.format(count) in names:
        count += 1
    return count


def _neck(shapes: Shapes) -> tuple[str, int]:
    if "neck.conv_layers.0.0.conv.weight" in shapes:
        return "jpu", shapes["neck.conv_layers.0.0.conv.weight"][0]
    if "neck.jum.2.conv_l.conv.weight" in shapes:
        return "jpu_x", shapes["neck.jum.2.conv_l.conv.weight"][0]
    return "none", 0


def _head(shapes: Shapes) -> tuple[str, int]:
    marks = {
        "enc": "decode_head.enc_module.encoding_project.conv.weight",
        "psp": "decode_head.psp_modules.0.1.conv.weight",
        "aspp": "decode_head.aspp_modules.0.conv.weight",
        "fcn": "decode_head.convs.0.conv.weight",
    }
    for head, mark in marks.items():
        if mark in shapes:
            return head, shapes[mark][0]
    raise UserError(f"the head is none of psp, aspp, enc, fcn; {_seen(shapes, 'decode_head.')}")


def _seen(shapes: Shapes, prefix: str) -> str:
    """The modules that the file has under `prefix`, for a message."""
    modules = {".".join(name.split(".")[1:3]) for name in shapes if name.startswith(prefix)}
    return f"under {prefix} it has: {', '.join(sorted(modules)[:12]) or 'nothing'}"


# How to accept a difference that is intended.
REMEDIES = {
    "stem": "--config.model.stem={}",
    "average_downsample": "--config.model.average_downsample={}",
    "auxiliary": "--config.model.auxiliary={}",
    "num_classes": "--reset-head initialises new classifiers",
}


def differences(detected: Detected, model: ConfigDict, num_classes: int) -> list[str]:
    """Where weights contradict `config.model`, as "key: the file has x, the configuration y"."""
    outputs = 1 if model.num_classes == 1 else num_classes  # one channel, for two classes
    wanted = {key: model[key] for key in Detected._fields} | {"num_classes": outputs}
    if detected.neck == "none":
        wanted["neck_channels"] = 0
    if not detected.auxiliary:
        wanted["auxiliary_channels"] = 0
    return [
        f"{key}: the file has {value}, the configuration {wanted[key]}{_remedy(key, value)}"
        for key, value in detected._asdict().items()
        if value != wanted[key]
    ]


def refuse_differences(detected: Detected, model: ConfigDict, num_classes: int) -> None:
    """Raises UserError if the weights are of another model than the configured one."""
    if differing := differences(detected, model, num_classes):
        raise UserError(
            f"another model than the configured one ({detected}): {'; '.join(differing)}"
        )


def _remedy(key: str, value: object) -> str:
    if (key, value) == ("num_classes", 1):
        return " (--config.model.num_classes=1 is one channel for two classes)"
    return f" ({REMEDIES[key].format(value)})" if key in REMEDIES else ""
