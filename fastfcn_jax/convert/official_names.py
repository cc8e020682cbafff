"""Converts the official code's state dict to Flax variables and back, by a table of names.

Both lineages share our modules, which have mmsegmentation's names, so the official names are first
translated to those. Weights are never reordered: the official JPU concatenates c5 first and its
ASPP the pooled branch last, which are constructor arguments of the modules.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from fastfcn_jax.convert import mmseg_names
from fastfcn_jax.errors import UserError

Names = tuple[tuple[str, str], ...]

# Every official checkpoint contains the ImageNet classifier, which is never used.
IGNORED = ("pretrained.fc.weight", "pretrained.fc.bias")

# Pairs (official module, mmsegmentation-style module), here within the backbone. The deep stem's
# third norm has a name of its own; the plain one's only norm has the same.
DEEP_STEM: Names = (*((f"conv1.{i}", f"stem.{i}") for i in (0, 1, 3, 4, 6)), ("bn1", "stem.7"))
PLAIN_STEM: Names = (("conv1", "conv1"), ("bn1", "bn1"))
STAGES: Names = tuple((f"layer{i}", f"layer{i}") for i in (1, 2, 3, 4))
JPU: Names = tuple(
    pair
    for i, level in enumerate((3, 4, 5))
    for pair in (
        (f"jpu.conv{level}.0", f"neck.conv_layers.{i}.0.conv"),
        (f"jpu.conv{level}.1", f"neck.conv_layers.{i}.0.bn"),
    )
) + tuple(
    pair
    for i in range(4)
    for pair in (
        (f"jpu.dilation{i + 1}.0.conv1", f"neck.dilation_layers.{i}.0.depthwise_conv.conv"),
        (f"jpu.dilation{i + 1}.0.bn", f"neck.dilation_layers.{i}.0.depthwise_conv.bn"),
        (f"jpu.dilation{i + 1}.0.pointwise", f"neck.dilation_layers.{i}.0.pointwise_conv.conv"),
        (f"jpu.dilation{i + 1}.1", f"neck.dilation_layers.{i}.0.pointwise_conv.bn"),
    )
)
JPU_X: Names = tuple(
    (f"jpu.jum_{unit}.{theirs}", f"neck.jum.{unit}.{ours}")
    for unit in (1, 2)
    for theirs, ours in (
        ("conv_l.0", "conv_l.conv"),
        ("conv_l.1", "conv_l.bn"),
        ("conv_h.0", "conv_h.conv"),
        ("conv_h.1", "conv_h.bn"),
        *(
            (f"dilation{i + 1}.{theirs}", f"dilation_layers.{i}.{ours}")
            for i in range(3)
            for theirs, ours in (
                ("0.conv1", "depthwise_conv.conv"),
                ("0.bn", "depthwise_conv.gn"),
                ("0.pointwise", "pointwise_conv.conv"),
                ("1", "pointwise_conv.gn"),
            )
        ),
    )
)
AUXILIARY: Names = (
    ("auxlayer.conv5.0", "auxiliary_head.convs.0.conv"),
    ("auxlayer.conv5.1", "auxiliary_head.convs.0.bn"),
    ("auxlayer.conv5.4", "auxiliary_head.conv_seg"),
)
# `head.conv5` is a convolution in encnet but the whole head in psp and fcn: a table for each.
HEADS: dict[str, Names] = {
    "enc": (
        ("head.conv5.0", "decode_head.bottleneck.conv"),
        ("head.conv5.1", "decode_head.bottleneck.bn"),
        *(
            (f"head.connect.{i}.{j}", f"decode_head.lateral_convs.{i}.{name}")
            for i in range(2)
            for j, name in enumerate(("conv", "bn"))
        ),
        ("head.fusion.0", "decode_head.fusion.conv"),
        ("head.fusion.1", "decode_head.fusion.bn"),
        ("head.encmodule.encoding.0", "decode_head.enc_module.encoding_project.conv"),
        ("head.encmodule.encoding.1", "decode_head.enc_module.encoding_project.bn"),
        ("head.encmodule.encoding.3", "decode_head.enc_module.encoding.0"),
        ("head.encmodule.encoding.4", "decode_head.enc_module.encoding.1"),
        ("head.encmodule.fc.0", "decode_head.enc_module.fc.0"),
        ("head.encmodule.selayer", "decode_head.se_layer"),
        ("head.conv6.1", "decode_head.conv_seg"),
    ),
    "psp": (
        *(
            (f"head.conv5.0.conv{i + 1}.{j}", f"decode_head.psp_modules.{i}.1.{name}")
            for i in range(4)
            for j, name in enumerate(("conv", "bn"))
        ),
        ("head.conv5.1", "decode_head.bottleneck.conv"),
        ("head.conv5.2", "decode_head.bottleneck.bn"),
        ("head.conv5.5", "decode_head.conv_seg"),
    ),
    "aspp": (
        *(
            (f"head.aspp.b{i}.{j}", f"decode_head.aspp_modules.{i}.{name}")
            for i in range(4)
            for j, name in enumerate(("conv", "bn"))
        ),
        ("head.aspp.b4.gap.1", "decode_head.image_pool.1.conv"),
        ("head.aspp.b4.gap.2", "decode_head.image_pool.1.bn"),
        ("head.aspp.project.0", "decode_head.project.conv"),
        ("head.aspp.project.1", "decode_head.project.bn"),
        ("head.block.0", "decode_head.bottleneck.conv"),
        ("head.block.1", "decode_head.bottleneck.bn"),
        ("head.block.4", "decode_head.conv_seg"),
    ),
    "fcn": (
        ("head.conv5.0", "decode_head.convs.0.conv"),
        ("head.conv5.1", "decode_head.convs.0.bn"),
        ("head.conv5.4", "decode_head.conv_seg"),
    ),
}


def to_flax(tensors: Mapping[str, np.ndarray]) -> dict:
    """Returns {"params": ..., "batch_stats": ...} of float32 arrays; `pretrained.fc` is left out.

    Raises:
      UserError: a name is not one of the official models'.
    """
    names = to_mmseg_names(tensors)
    unknown = [name for name, renamed in names.items() if renamed is None and name not in IGNORED]
    if unknown:
        raise UserError(f"not weights of an official FastFCN model: {', '.join(unknown[:8])}.")
    return mmseg_names.to_flax(
        {new: tensors[name] for name, new in names.items() if new is not None}
    )


def from_flax(variables: Mapping) -> dict[str, np.ndarray]:
    """Returns the official state dict of Flax variables: the exact inverse of `to_flax`.

    Raises:
      UserError: a weight has no place in the official models.
    """
    tensors = mmseg_names.from_flax(variables)
    names = from_mmseg_names(tensors)
    unknown = [name for name, renamed in names.items() if renamed is None]
    if unknown:
        raise UserError(f"the official models have no such weights: {', '.join(unknown[:8])}.")
    return {new: tensors[name] for name, new in names.items() if new is not None}


def to_mmseg_names(names: Iterable[str]) -> dict[str, str | None]:
    """Maps each official name to its mmsegmentation-style name, or None if it has none."""
    names = list(names)
    return _rename(names, _table(_official_head(names), "pretrained.conv1.weight" in names))


def from_mmseg_names(names: Iterable[str]) -> dict[str, str | None]:
    """The inverse of `to_mmseg_names`; needs all names of a model."""
    names = list(names)
    table = _table(_our_head(names), "backbone.conv1.weight" in names)
    return _rename(names, [(ours, theirs) for theirs, ours in table])


def _table(head: str, plain_stem: bool) -> Names:
    own = (PLAIN_STEM if plain_stem else DEEP_STEM) + STAGES
    backbone = tuple((f"pretrained.{theirs}", f"backbone.{ours}") for theirs, ours in own)
    return backbone + JPU + JPU_X + AUXILIARY + HEADS[head]


def _rename(names: Iterable[str], table: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Replaces the module at the start of each name."""
    modules = dict(table)
    renamed: dict[str, str | None] = {}
    for name in names:
        parts = name.split(".")
        starts = [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
        start = next((start for start in starts if start in modules), None)
        renamed[name] = None if start is None else modules[start] + name.removeprefix(start)
    return renamed


def _official_head(names: Iterable[str]) -> str:
    for name in names:
        if name.startswith("head.encmodule."):
            return "enc"
        if name.startswith("head.conv5.0.conv1."):
            return "psp"
        if name.startswith("head.aspp."):
            return "aspp"
    return "fcn"


def _our_head(names: Iterable[str]) -> str:
    for name in names:
        if name.startswith("decode_head.enc_module."):
            return "enc"
        if name.startswith("decode_head.psp_modules."):
            return "psp"
        if name.startswith("decode_head.aspp_modules."):
            return "aspp"
    return "fcn"
