"""BatchNorm folded into the convolutions before it, for inference."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from fastfcn_jax.models.segmentor import Segmentor


def fold(variables: Mapping) -> dict:
    """Returns the variables of the folded model: kernels scaled, norms reduced to their bias.

    y = (conv(x) - mean) * a + b with a = scale / sqrt(var + 1e-5) is conv(x) with the kernel
    times a, plus b - mean * a. What stays a BatchNorm of its own (over the codes of the
    Encoding layer, not behind a convolution) keeps all its variables.
    """
    params: dict[Any, Any] = traverse_util.flatten_dict(dict(variables["params"]))
    stats: dict[Any, Any] = traverse_util.flatten_dict(dict(variables["batch_stats"]))
    for path in [path[:-1] for path in stats if path[-1] == "mean"]:
        kernel_path = (*path[:-1], _convolution_before(path[-1]), "kernel")
        if kernel_path not in params:
            continue
        mean, var = (np.asarray(stats.pop((*path, name)), np.float64) for name in ("mean", "var"))
        factor = np.asarray(params.pop((*path, "scale")), np.float64) / np.sqrt(var + 1e-5)
        kernel, bias = np.asarray(params[kernel_path]), np.asarray(params[(*path, "bias")])
        params[kernel_path] = (kernel * factor).astype(np.float32)
        params[(*path, "bias")] = (bias - mean * factor).astype(np.float32)
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(stats),
    }


def _convolution_before(norm: str) -> str:
    """bn -> conv, bn2 -> conv2, stem_4 -> stem_3, downsample_1 -> downsample_0."""
    if norm.startswith("bn"):
        return norm.replace("bn", "conv")
    return re.sub(r"\d+$", lambda number: str(int(number[0]) - 1), norm)


def folded(model: Segmentor) -> Segmentor:
    """Returns the model that takes `fold`'s variables; it cannot be trained."""
    return with_common(model, folded=True)


def with_common(model: Segmentor, **changes) -> Segmentor:
    """Returns the model with fields of its layers' `Common` replaced."""

    def change(module):
        if module is None:
            return None
        return module.clone(common=dataclasses.replace(module.common, **changes))

    parts = ("backbone", "neck", "decode_head", "auxiliary_head")
    changed: dict[str, Any] = {part: change(getattr(model, part)) for part in parts}
    return model.clone(**changed)
