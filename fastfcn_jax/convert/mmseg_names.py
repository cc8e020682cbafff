"""Converts mmsegmentation's state dict to Flax variables and back by renaming and transposing.

Names: `backbone.layer1.0.conv1.weight` <-> `backbone/layer1_0/conv1/kernel`; digits are joined to
the part before them. Layouts: convolutions OIHW <-> HWIO, linear layers transposed, BatchNorm's
weight, bias, running_mean, running_var <-> scale, bias in "params" and mean, var in
"batch_stats".
"""

import re
from collections.abc import Container, Mapping

import numpy as np
from flax import traverse_util
from numpy.typing import DTypeLike

Path = tuple[str, ...]


def to_flax(tensors: Mapping[str, np.ndarray], dtype: DTypeLike = np.float32) -> dict:
    """Returns {"params": ..., "batch_stats": ...} of arrays of `dtype`; order does not matter.

    A leading `module.` is stripped and BatchNorm's step counters are left out.
    """
    flat = {}
    for name, tensor in tensors.items():
        if name.endswith(".num_batches_tracked"):
            continue
        array = np.asarray(tensor, dtype)
        path = flax_path(name.removeprefix("module."), array.ndim)
        if path[-1] == "kernel":
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        flat[path] = np.ascontiguousarray(array)
    return {"params": {}, "batch_stats": {}, **traverse_util.unflatten_dict(flat)}


def from_flax(variables: Mapping) -> dict[str, np.ndarray]:
    """Returns the state dict of Flax variables: the exact inverse of `to_flax`."""
    flat = traverse_util.flatten_dict(dict(variables))
    tensors = {}
    for path, value in flat.items():
        array = np.asarray(value)
        if path[-1] == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        tensors[torch_name(path, flat)] = np.ascontiguousarray(array)
    return tensors


def flax_path(name: str, ndim: int) -> Path:
    """Path of a state-dict entry of `ndim` axes in Flax variables, its collection first."""
    *parts, leaf = name.split(".")
    modules: list[str] = []
    for part in parts:
        if part.isdigit() and modules:
            modules[-1] += f"_{part}"
        else:
            modules.append(part)
    if leaf in ("running_mean", "running_var"):
        return ("batch_stats", *modules, leaf.removeprefix("running_"))
    if leaf == "weight":
        leaf = "kernel" if ndim in (2, 4) else "scale"
    return ("params", *modules, leaf)


def torch_name(path: Path, siblings: Container[Path]) -> str:
    """State-dict name of a Flax path; `siblings` holds the paths of the whole model."""
    *modules, leaf = path
    # The Encoding layer also has a `scale` (next to `codewords`); it is not a BatchNorm weight.
    if leaf == "kernel" or (leaf == "scale" and (*modules, "codewords") not in siblings):
        leaf = "weight"
    elif leaf in ("mean", "var"):
        leaf = f"running_{leaf}"
    return re.sub(r"_(\d+)(?=_|\.)", r".\1", ".".join([*modules[1:], leaf]))
