"""Reads ImageNet weights of a backbone to start training from."""

import os
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from fastfcn_jax.convert import fit, mmseg_names, official_names, weight_file
from fastfcn_jax.convert.detect import resnet
from fastfcn_jax.errors import UserError


class Backbone(NamedTuple):
    """Variables {"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}, float32; notes."""

    variables: dict[str, Any]
    notes: list[str]


def load(path: str | os.PathLike, model: ConfigDict) -> Backbone:
    """Reads a backbone's variables from a `.pth` or `.safetensors` file.

    Takes mmsegmentation's `resnet*_v1c` files, the deep-base files of the official code, the
    backbone of a whole segmentation model of either lineage, and torchvision's ResNets. The last
    have a single 7x7 stem, which does not fit: it is left out, and a note says so.

    Args:
      model: `config.model`.

    Raises:
      UserError: the file cannot be read, holds another backbone, or is incomplete.
    """
    tensors = _own_names(weight_file.read(path).tensors)
    try:
        found = resnet(tensors)
        fit.refuse_nonfinite(tensors, {})
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error
    if found != model.backbone:
        raise UserError(f"{path}: holds {found}, and config.model.backbone is {model.backbone}.")
    flat: dict[mmseg_names.Path, Any] = traverse_util.flatten_dict(
        mmseg_names.to_flax({f"backbone.{name}": tensor for name, tensor in tensors.items()})
    )
    wanted = {p: leaf for p, leaf in fit.template(model, 2).items() if p[1] == "backbone"}
    missing = [p for p in wanted if p not in flat]
    left_over = [p for p in flat if p not in wanted]
    shapes = [p for p in flat if p in wanted and flat[p].shape != wanted[p].shape]
    notes = []
    if missing and all(p[2].startswith("stem_") for p in missing):
        notes = ["the file has another stem: the stem starts from random weights"]
        missing = []
    if missing or left_over or shapes:
        raise UserError(
            f"{path}: does not fit the {model.lineage} lineage's backbone. "
            f"Missing from the file: {_listed(missing)}. "
            f"Left over in the file: {_listed(left_over)}. "
            f"Of another shape (the lineages' stems differ): {_listed(shapes)}."
        )
    return Backbone(traverse_util.unflatten_dict(flat), notes)


def _own_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The backbone's tensors under mmsegmentation's names without the prefix `backbone.`."""
    tops = {name.split(".")[0] for name in tensors}
    if "backbone" in tops:
        tensors = _below("backbone.", tensors)
    elif "pretrained" in tops:
        tensors = _below("pretrained.", tensors)
    stems = {
        theirs.removeprefix("pretrained."): ours.removeprefix("backbone.")
        for theirs, ours in official_names.BACKBONE
        if "stem" in ours
    }
    own = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module == "fc" or (module in ("conv1", "bn1") and "conv1.weight" in tensors):
            continue  # ImageNet's classifier; torchvision's stem
        own[f"{stems.get(module, module)}.{leaf}"] = tensor
    return own


def _below(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _listed(paths: list[mmseg_names.Path]) -> str:
    return ", ".join("/".join(path[1:]) for path in sorted(paths)[:12]) or "none"
