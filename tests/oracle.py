"""The references: imports mmsegmentation, torchvision and timm; builds models, random weights."""

import contextlib
import functools
import importlib
import importlib.machinery
import sys
import types
import warnings
import zlib
from pathlib import Path

import numpy as np


class _Absent(types.ModuleType):
    """Replaces `mmcv.ops`, which mmcv-lite lacks; using any of its names raises an error."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_, **__):
            raise RuntimeError(f"mmcv.ops.{name} is not part of mmcv-lite")

        return type(name, (), {"__init__": absent, "__call__": absent})


def import_mmseg():
    """Imports mmsegmentation 1.2.2 with mmcv-lite, registers its models, returns the module."""
    if "mmcv.ops" not in sys.modules:
        stub = _Absent("mmcv.ops")
        stub.__spec__ = importlib.machinery.ModuleSpec("mmcv.ops", None)
        sys.modules["mmcv.ops"] = stub
    with warnings.catch_warnings(), _without("timm"):
        warnings.simplefilter("ignore")
        mmseg = importlib.import_module("mmseg")
        importlib.import_module("mmseg.models")
        importlib.import_module("mmseg.utils").register_all_modules()
    return mmseg


@contextlib.contextmanager
def _without(name: str):
    """Hides an optional package that takes long to import, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # an import raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]


@functools.cache
def import_torchvision():
    """Imports torchvision's models, also those of a build for CUDA beside a PyTorch for CPUs.

    Its compiled operators cannot be loaded then; the models use none of them.
    """
    import torch

    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        operators = torch.library.Library("torchvision", "FRAGMENT")
        _LIBRARIES.append(operators)
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision.models")


_LIBRARIES = []  # operators vanish with their library


def import_timm():
    """Imports timm, which imports torchvision."""
    import_torchvision()
    return importlib.import_module("timm")


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
    """Replaces SyncBN, which needs a process group; BN is equivalent in one process."""
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


def random_tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Draws one tensor of a state dict, seeded by its name, so that every branch has an effect.

    BatchNorm: weight 0.5..1.5, variance 0.5..2, mean and bias N(0, 0.1). Logits are about 1 to 10,
    like those of a trained model. The same again is a copy: drawing takes longer than many a test.
    """
    return drawn_tensor(key, shape, seed).copy()


@functools.cache
def drawn_tensor(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng((seed, zlib.crc32(key.encode())))
    if key.endswith("running_var"):
        values = rng.uniform(0.5, 2.0, shape)
    elif key.endswith(("running_mean", ".bias")):
        values = rng.normal(0, 0.1, shape)
    elif key.endswith(".scale"):  # of the Encoding layer: small, or one codeword takes all pixels
        values = rng.uniform(-0.02, 0, shape)
    elif len(shape) == 1:
        values = rng.uniform(0.5, 1.5, shape)
    else:
        backbone = key.startswith(("backbone.", "pretrained."))
        gain = 1.0 if backbone else 2.0**0.5
        if key.endswith(("se_layer.weight", "selayer.weight")):
            gain = 0.1  # PyTorch's BCELoss after a sigmoid saturates above logits of 17
        values = rng.standard_normal(shape, np.float32) * (gain / np.prod(shape[1:]) ** 0.5)
    return values.astype(np.float32)


def randomize(module, seed: int = 0):
    """Fills a PyTorch module with `random_tensor` and returns it in evaluation mode."""
    import torch

    for key, tensor in module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(random_tensor(key, tuple(tensor.shape), seed)))
    return module.eval()


def tensors_of(module) -> dict[str, np.ndarray]:
    """Returns a module's state dict as NumPy arrays."""
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def data_sample(label):
    """Wraps a label map, an integer tensor (h, w), as mmseg's data sample."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
    shape = tuple(label.shape)
    sample.set_metainfo({"ori_shape": shape, "img_shape": shape})
    return sample


def to_torch(images: np.ndarray):
    """NHWC array -> NCHW tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def to_numpy(tensor) -> np.ndarray:
    """NCHW tensor -> NHWC array; tensors with fewer axes are not transposed."""
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


class GlobalDraws:
    """Lets our transforms draw from NumPy's global generator, as mmseg does."""

    def random(self):
        return np.random.random_sample()  # noqa: NPY002

    def uniform(self, low, high):
        return np.random.uniform(low, high)  # noqa: NPY002

    def integers(self, low, high):
        return np.random.randint(low, high)  # noqa: NPY002
