"""mmsegmentation's state dict to Flax variables and back: one rename rule, one layout rule.

Names: `backbone.layer1.0.conv1.weight` <-> `backbone/layer1_0/conv1/kernel`; digits join the
part before them. Layouts: convolutions OIHW <-> HWIO, linear layers transposed, BatchNorm's
weight, bias, running_mean, running_var <-> scale, bias in "params" and mean, var in
"batch_stats".
"""

import re
from collections.abc import Mapping

import numpy as np
from flax import traverse_util

from fastfcn_jax.errors import UserError

Tensors = Mapping[str, np.ndarray]


def to_flax(tensors: Tensors) -> dict:
    """Returns {"params": ..., "batch_stats": ...} of float32 arrays; order does not matter.

    A leading `module.` is stripped and BatchNorm's step counters are left out.
    """
    flat = {}
    for key, tensor in tensors.items():
        *parts, leaf = key.removeprefix("module.").split(".")
        if leaf == "num_batches_tracked":
            continue
        collection, name, array = _leaf_to_flax(leaf, np.asarray(tensor, np.float32))
        flat[(collection, *_join_digits(parts), name)] = np.ascontiguousarray(array)
    return {"params": {}, "batch_stats": {}, **traverse_util.unflatten_dict(flat)}


def from_flax(variables: Mapping) -> dict[str, np.ndarray]:
    """Returns the state dict of Flax variables: the exact inverse of `to_flax`."""
    flat = traverse_util.flatten_dict(dict(variables))
    tensors = {}
    for (collection, *parts, name), value in flat.items():
        has_codewords = (collection, *parts, "codewords") in flat
        leaf, array = _leaf_from_flax(name, np.asarray(value), has_codewords)
        module = re.sub(r"_(\d+)(?=_|\.|$)", r".\1", ".".join(parts))
        tensors[f"{module}.{leaf}"] = np.ascontiguousarray(array)
    return tensors


def _join_digits(parts: list[str]) -> list[str]:
    joined: list[str] = []
    for part in parts:
        if part.isdigit() and joined:
            joined[-1] += f"_{part}"
        else:
            joined.append(part)
    return joined


def _leaf_to_flax(leaf: str, array: np.ndarray) -> tuple[str, str, np.ndarray]:
    if leaf in ("running_mean", "running_var"):
        return "batch_stats", leaf.removeprefix("running_"), array
    if leaf == "weight" and array.ndim == 4:
        return "params", "kernel", array.transpose(2, 3, 1, 0)
    if leaf == "weight" and array.ndim == 2:
        return "params", "kernel", array.T
    return "params", "scale" if leaf == "weight" else leaf, array


def _leaf_from_flax(name: str, array: np.ndarray, has_codewords: bool) -> tuple[str, np.ndarray]:
    if name in ("mean", "var"):
        return f"running_{name}", array
    if name == "kernel":
        return "weight", array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    # The Encoding layer's own `scale` beside its codewords is no BatchNorm weight.
    return "weight" if name == "scale" and not has_codewords else name, array


def check_match(variables: Mapping, template: Mapping) -> None:
    """Raises UserError naming what either side lacks, or where shapes differ.

    template: the model's variables (arrays or shapes), to be replaced by `variables`.
    """
    have = traverse_util.flatten_dict(dict(variables), sep="/")
    want = traverse_util.flatten_dict(dict(template), sep="/")
    differing = [
        f"{key} {have[key].shape} for {want[key].shape}"
        for key in sorted(have.keys() & want.keys())
        if have[key].shape != want[key].shape
    ]
    findings = {
        "missing": sorted(want.keys() - have.keys()),
        "left over": sorted(have.keys() - want.keys()),
        "of another shape": differing,
    }
    if any(findings.values()):
        lists = "; ".join(f"{name}: {', '.join(keys) or 'none'}" for name, keys in findings.items())
        raise UserError(f"the weights do not fit the model: {lists}")
