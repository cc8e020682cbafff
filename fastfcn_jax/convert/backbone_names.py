"""Renames the ResNets of other projects to mmsegmentation's names, without `backbone.` before them.

torchvision, timm and mmpretrain differ in the stem, mmpretrain and Paddle in the shortcuts of
ResNet-D, Paddle in everything. What no rule knows keeps its name, and is left over.
"""

import re
from collections.abc import Mapping

import numpy as np

from fastfcn_jax.convert.official_names import DEEP_STEM

PREFIXES = ("backbone", "pretrained")  # of whole models, mmsegmentation's and the official code's
# mmpretrain's, and that of PaddleClas.
_STEM_OF_MODULES = {
    f"stem.{i}.{layer}": f"stem.{3 * i + j}"
    for i in range(3)
    for j, layer in enumerate(("conv", "bn"))
}
_FIRST_SHORTCUT = {f"layer1.0.downsample.{i}": f"layer1.0.downsample.{i + 1}" for i in (0, 1)}
_PADDLE_LEAVES = {"_mean": "running_mean", "_variance": "running_var"}
_PADDLE_LAYERS = {"_conv": "conv", "_batch_norm": "bn", "conv": "conv", "bn": "bn"}
# Layers of PaddleSeg's and of PaddleClas's; the latter numbers the blocks of all stages through.
_SHORT_OF_BLOCK = re.compile(r"blocks\.(\d{1,4})\.short\.conv\.weight")
_STEM = re.compile(r"(?:conv1_(?P<seg>[123])|stem\.(?P<clas>[012]))\.(?P<layer>\w+)")
_BLOCK = re.compile(
    r"(?:bb_(?P<stage>\d)_(?P<index>\d+)|blocks\.(?P<number>\d+))"
    r"\.(?:conv(?P<conv>[012])|short)\.(?P<layer>\w+)"
)


def to_mmseg_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The backbone's tensors of a file, of a whole model's too, without ImageNet's classifier."""
    tops = {name.split(".")[0] for name in tensors}
    prefix = next((f"{top}." for top in PREFIXES if top in tops), "")
    names = [name for name in tensors if name.startswith(prefix)]
    short = renamed([name.removeprefix(prefix) for name in names])
    own = dict(zip(short, (tensors[name] for name in names), strict=True))
    return {name: tensor for name, tensor in own.items() if not name.startswith("fc.")}


def renamed(names: list[str]) -> list[str]:
    """The names in mmsegmentation's style, in the same order."""
    if any(name.endswith("._mean") for name in names):  # as Paddle's BatchNorm calls it
        names = _paddle(names)
    known = set(names)
    modules = _STEM_OF_MODULES
    if "conv1.0.weight" in known:  # the official code's and timm's
        modules = dict(DEEP_STEM)
    if "layer2.0.downsample.2.weight" in known and "layer1.0.downsample.2.weight" not in known:
        # ResNet-D: layer1 does not down-sample, and mmpretrain counts no pooling layer there.
        modules = modules | _FIRST_SHORTCUT
    return [_with_module(name, modules) for name in names]


def _with_module(name: str, modules: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{modules.get(module, module)}.{leaf}" if module else name


def _paddle(names: list[str]) -> list[str]:
    """Names of PaddleSeg's or PaddleClas's ResNet, plain or vd, in mmpretrain's style."""
    # PaddleClas numbers the blocks through; with each stage begins one whose shortcut is a layer.
    firsts = sorted(int(found[1]) for name in names if (found := _SHORT_OF_BLOCK.fullmatch(name)))
    deep = any(name.startswith(("conv1_2.", "stem.1.")) for name in names)
    return [_paddle_name(name, firsts, deep) for name in names]


def _paddle_name(name: str, firsts: list[int], deep: bool) -> str:
    module, _, leaf = name.rpartition(".")
    leaf = _PADDLE_LEAVES.get(leaf, leaf)
    if (found := _STEM.fullmatch(module)) and (layer := _PADDLE_LAYERS.get(found["layer"])):
        if not deep:
            return f"{layer}1.{leaf}"
        number = int(found["clas"]) if found["clas"] else int(found["seg"]) - 1
        return f"stem.{number}.{layer}.{leaf}"
    if (found := _BLOCK.fullmatch(module)) and (layer := _PADDLE_LAYERS.get(found["layer"])):
        if found["number"] is None:
            stage, index = int(found["stage"]), int(found["index"])
        else:
            number = int(found["number"])
            stage = sum(first <= number for first in firsts) - 1
            index = number - firsts[stage] if firsts else number
        block = f"layer{stage + 1}.{index}"
        if found["conv"] is not None:
            return f"{block}.{layer}{int(found['conv']) + 1}.{leaf}"
        # ResNet-D where the stem is deep; in the first stage it has no pooling layer.
        place = ("conv", "bn").index(layer) + (deep and stage > 0)
        return f"{block}.downsample.{place}.{leaf}"
    return f"{module}.{leaf}" if module else name
