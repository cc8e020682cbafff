"""Reads ImageNet weights of a backbone to start training from."""

import os
from typing import Any, NamedTuple

from flax import traverse_util
from ml_collections import ConfigDict

from fastfcn_jax.convert import backbone_names, detect, fit, mmseg_names, weight_file
from fastfcn_jax.errors import UserError

_STEM = ("stem_", "conv1", "bn1")  # how the modules of a stem begin


class Backbone(NamedTuple):
    """Variables {"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}, float32; notes."""

    variables: dict[str, Any]
    notes: list[str]


def load(path: str | os.PathLike, model: ConfigDict) -> Backbone:
    """Reads a backbone's variables from a `.pth`, `.safetensors` or `.pdparams` file.

    Takes the ResNets of torchvision, timm, mmsegmentation, mmpretrain, Paddle and the official
    code, and the backbone of a whole segmentation model of either lineage. If the stem is of
    another kind than the configured one, it is left out, and a note says so.

    Args:
      model: `config.model`.

    Raises:
      UserError: the file cannot be read, holds another backbone, or is incomplete.
    """
    tensors = backbone_names.to_mmseg_names(weight_file.read(path).tensors)
    try:
        found = detect.backbone({name: tensor.shape for name, tensor in tensors.items()})
        fit.refuse_nonfinite(tensors, {})
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error
    for key in ("backbone", "average_downsample"):
        if found[key] != model[key]:
            raise UserError(f"{path}: {_difference(key, found, model)}.")
    flat: dict[mmseg_names.Path, Any] = traverse_util.flatten_dict(
        mmseg_names.to_flax({f"backbone.{name}": tensor for name, tensor in tensors.items()})
    )
    wanted = {p: leaf for p, leaf in fit.template(model, 2).items() if p[1] == "backbone"}
    notes = []
    if found["stem"] != model.stem:
        random = sorted({p[2] for p in wanted if p[2].startswith(_STEM)})
        flat, wanted = (
            {p: leaf for p, leaf in paths.items() if not p[2].startswith(_STEM)}
            for paths in (flat, wanted)
        )
        notes = [
            f"warning: {_difference('stem', found, model)}. Now {', '.join(random)} start from "
            "random weights, and the layers behind them were trained on another stem's output"
        ]
    missing = [p for p in wanted if p not in flat]
    left_over = [p for p in flat if p not in wanted]
    shapes = [p for p in flat if p in wanted and flat[p].shape != wanted[p].shape]
    if missing or left_over or shapes:
        raise UserError(
            f"{path}: does not fit the {model.lineage} lineage's backbone. "
            f"Missing from the file: {_listed(missing)}. "
            f"Left over in the file: {_listed(left_over)}. "
            f"Of another shape (the lineages' deep stems differ): {_listed(shapes)}."
        )
    return Backbone(traverse_util.unflatten_dict(flat), notes)


def _difference(key: str, found: dict[str, Any], model: ConfigDict) -> str:
    """What differs between the file and the configuration, and how to follow the file."""
    return (
        f"the file's {_WORDS[key]} is {found[key]}, and config.model.{key} is {model[key]}; "
        f"--config.model.{key}={found[key]} takes the file as it is"
    )


_WORDS = {
    "backbone": "backbone",
    "stem": "stem",
    "average_downsample": "averaging in the shortcuts (ResNet-D)",
}


def _listed(paths: list[mmseg_names.Path]) -> str:
    return ", ".join("/".join(path[1:]) for path in sorted(paths)[:12]) or "none"
