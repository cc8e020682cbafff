"""Converts the state dict of PaddleSeg's FastFCN to mmsegmentation's names and layouts and back.

As with the official code's, the names are translated by a table of modules. Paddle's linear layers
are stored as (inputs, outputs). Two of its convolutions have a bias before BatchNorm, which only
shifts the mean: it is taken from the running mean, and is 0 when written.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from fastfcn_jax.convert import backbone_names

# The first parts of names by which the whole model is recognised.
MARKS = frozenset({"backbone", "bottleneck", "enc_module", "cls_seg"})
_MODULES = (
    *((f"jpu_layer.conv{level}", f"neck.conv_layers.{i}.0") for i, level in enumerate((3, 4, 5))),
    *(
        (f"jpu_layer.dilation{i + 1}.{theirs}", f"neck.dilation_layers.{i}.0.{ours}")
        for i in range(4)
        for theirs, ours in (
            ("depthwise_conv", "depthwise_conv"),
            ("piontwise_conv", "pointwise_conv"),  # as PaddleSeg spells it
        )
    ),
    ("bottleneck", "decode_head.bottleneck"),
    *((f"lateral_convs.{i}", f"decode_head.lateral_convs.{i}") for i in range(2)),
    ("fusion", "decode_head.fusion"),
    ("enc_module", "decode_head.enc_module"),
    ("se_layer", "decode_head.se_layer"),
    ("cls_seg", "decode_head.conv_seg"),
    ("fcn_head.conv_bn_relu", "auxiliary_head.convs.0"),
    ("fcn_head.conv", "auxiliary_head.conv_seg"),
)
_LAYERS = {"_conv": "conv", "_batch_norm": "bn"}
_LEAVES = {"_mean": "running_mean", "_variance": "running_var"}
_BIASED = ("decode_head.enc_module.encoding_project", "auxiliary_head.convs.0")
_LINEAR = ("decode_head.se_layer.weight", "decode_head.enc_module.fc.0.weight")


def to_mmseg_names(names: Iterable[str]) -> dict[str, str]:
    """Maps each of PaddleSeg's names to its mmsegmentation-style one; unknown ones stay."""
    names = list(names)
    own = [name for name in names if name.startswith("backbone.")]
    inner = backbone_names.renamed([name.removeprefix("backbone.") for name in own])
    ours = {name: f"backbone.{new}" for name, new in zip(own, inner, strict=True)}
    return {name: ours.get(name) or _renamed(name) for name in names}


def to_mmseg(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under mmsegmentation-style names, from those already renamed but in Paddle's form."""
    found = dict(tensors)
    for module in _BIASED:
        mean, bias = f"{module}.bn.running_mean", f"{module}.conv.bias"
        if bias in found and mean in found and found[bias].shape == found[mean].shape:
            found[mean] = found[mean] - found.pop(bias)
    return {name: x.T if name in _LINEAR else x for name, x in found.items()}


def from_mmseg(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PaddleSeg's state dict from tensors of mmsegmentation-style names and layouts."""
    relaid = {name: x.T if name in _LINEAR else x for name, x in tensors.items()}
    for module in _BIASED:
        if f"{module}.bn.running_mean" in relaid:
            relaid[f"{module}.conv.bias"] = np.zeros_like(relaid[f"{module}.bn.running_mean"])
    return {from_mmseg_name(name): np.ascontiguousarray(x) for name, x in relaid.items()}


def from_mmseg_name(name: str) -> str:
    """PaddleSeg's name of an entry; needs the ResNet-D names of the backbone."""
    module, _, leaf = name.rpartition(".")
    leaf = _OUR_LEAVES.get(leaf, leaf)
    if module.startswith("backbone."):
        return f"{_backbone_module(module)}.{leaf}"
    return f"{_exchanged(module, _OUR_MODULES, _OUR_LAYERS)}.{leaf}"


def _renamed(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{_exchanged(module, dict(_MODULES), _LAYERS)}.{_LEAVES.get(leaf, leaf)}"


def _exchanged(module: str, modules: Mapping[str, str], layers: Mapping[str, str]) -> str:
    """The module by the longest start that is known, and by the last part."""
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if (start := ".".join(parts[:n])) in modules:
            return ".".join([modules[start], *(layers.get(part, part) for part in parts[n:])])
    return module


_OUR_LAYERS, _OUR_LEAVES, _OUR_MODULES = (
    {ours: theirs for theirs, ours in pairs}
    for pairs in (_LAYERS.items(), _LEAVES.items(), _MODULES)
)


def _backbone_module(module: str) -> str:
    """PaddleSeg's name of one of our backbone's modules."""
    if found := re.fullmatch(r"backbone\.stem\.(\d)", module):
        number = int(found[1])
        return f"backbone.conv1_{number // 3 + 1}.{_OUR_LAYERS['bn' if number % 3 else 'conv']}"
    block = r"backbone\.layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)"
    if found := re.fullmatch(block, module):
        stage, index, kind, number = found.groups()
        place, layer = f"conv{int(number) - 1}", kind
        if kind == "downsample.":
            place, layer = "short", "conv" if number == "1" else "bn"
        return f"backbone.bb_{int(stage) - 1}_{index}.{place}.{_OUR_LAYERS[layer]}"
    return module
