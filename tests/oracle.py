"""The real mmsegmentation as oracle: importing it, building its models, random weights."""

import importlib
import importlib.machinery
import sys
import types
import warnings
from pathlib import Path

import numpy as np


class _Absent(types.ModuleType):
    """Stands for `mmcv.ops`, which the light mmcv lacks; using any of its names raises."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_, **__):
            raise RuntimeError(f"mmcv.ops.{name} is not part of mmcv-lite")

        return type(name, (), {"__init__": absent, "__call__": absent})


def import_mmseg():
    """Imports mmsegmentation 1.2.2 on mmcv-lite and returns the module, models registered."""
    if "mmcv.ops" not in sys.modules:
        stub = _Absent("mmcv.ops")
        stub.__spec__ = importlib.machinery.ModuleSpec("mmcv.ops", None)
        sys.modules["mmcv.ops"] = stub
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mmseg = importlib.import_module("mmseg")
        importlib.import_module("mmseg.models")
        importlib.import_module("mmseg.utils").register_all_modules()
    return mmseg


def mmseg_config(name: str):
    """Returns mmseg's shipped config `FOLDER/FILE`, ready for one CPU and without pretraining."""
    from mmengine.config import Config

    mmseg = import_mmseg()
    path = Path(mmseg.__file__).parent / ".mim" / "configs" / f"{name}.py"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = Config.fromfile(path)
    _replace_sync_bn(config.model)
    config.model.pretrained = None
    return config


def _replace_sync_bn(node):
    """SyncBN needs a process group; on one process BN is the same function."""
    if isinstance(node, dict):
        if node.get("type") == "SyncBN":
            node["type"] = "BN"
        for value in node.values():
            _replace_sync_bn(value)


def build_mmseg(config, **overrides):
    """Builds the model of an mmseg config; `backbone={...}` etc. override parts of it."""
    from mmseg.registry import MODELS

    for part, values in overrides.items():
        config.model[part].update(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS.build(config.model)


def randomize(module, seed: int):
    """Draws every weight and statistic so that no branch vanishes (reference-like magnitudes).

    BatchNorm: weight 0.5..1.5, variance 0.5..2, mean and bias N(0, 0.1).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for key in sorted(state):
        tensor = state[key]
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif key.endswith("running_mean") or key.endswith(".bias"):
            tensor.normal_(0, 0.1, generator=generator)
        elif key.endswith(".scale"):
            tensor.uniform_(-1, 0, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            fan_in = tensor[0].numel()
            tensor.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return module.eval()


def tensors_of(module) -> dict[str, np.ndarray]:
    """Returns a module's state dict as NumPy arrays."""
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def to_torch(images: np.ndarray):
    """NHWC array -> NCHW tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def to_numpy(tensor) -> np.ndarray:
    """NCHW tensor -> NHWC array; tensors of fewer axes unchanged."""
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
