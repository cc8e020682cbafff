"""Keeps a small file that Paddle wrote, and names and shapes of Paddle's and mmpretrain's ResNets.

python tests/golden/make_backbone_names.py PADDLESEG PADDLECLAS

The arguments are checkouts. Needs paddlepaddle, mmpretrain and what they need. Writes
`paddle.pdparams` and `backbone_names.json`: {network: {name: shape}}, without step counters.
"""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import numpy as np
import oracle

HERE = Path(__file__).parent


def small_state_dict(paddle):
    """A convolution, BatchNorm and a linear layer; every array counts from 0."""
    layers = paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Linear(4, 2)
    )
    for value in layers.state_dict().values():
        value.set_value(np.arange(value.size, dtype=np.float32).reshape(value.shape))
    return layers.state_dict()


class Absent:
    """Replaces the packages for metrics and logs that the checkouts import and the networks not."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sklearn", "visualdl", "filelock", "easydict", "skimage"):
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def create_module(self, spec):
        module = oracle._Absent(spec.name)
        module.__spec__ = spec
        return module

    def exec_module(self, module):
        pass


def paddleseg(checkout: Path):
    """ResNet50_vd and FastFCN of PaddleSeg."""
    sys.path.insert(0, str(checkout))
    from paddleseg.models.backbones.resnet_vd import ResNet50_vd
    from paddleseg.models.fastfcn import FastFCN

    yield "paddleseg ResNet50_vd", ResNet50_vd()
    yield "paddleseg FastFCN", FastFCN(150, ResNet50_vd(), add_lateral=True)


def paddleclas(checkout: Path):
    """ResNet50 and ResNet50_vd of PaddleClas."""
    sys.path.insert(0, str(checkout))
    from ppcls.arch.backbone.legendary_models import resnet
    from ppcls.utils import logger

    logger.init_logger()
    yield "paddleclas ResNet50", resnet.ResNet50()
    yield "paddleclas ResNet50_vd", resnet.ResNet50_vd()


def mmpretrain():
    """ResNetV1d-50 of mmpretrain."""
    sys.modules.setdefault("mmcv.ops", types.ModuleType("mmcv.ops"))
    oracle.import_torchvision()
    from mmpretrain.models.backbones import ResNetV1d

    yield "mmpretrain resnet50_v1d", ResNetV1d(depth=50)


def main(seg: str, clas: str) -> None:
    import paddle

    sys.meta_path.append(Absent())
    paddle.save(small_state_dict(paddle), str(HERE / "paddle.pdparams"))
    found = {}
    for networks in (paddleseg(Path(seg)), paddleclas(Path(clas)), mmpretrain()):
        for name, network in networks:
            entries = {n: list(t.shape) for n, t in network.state_dict().items()}
            found[name] = {n: s for n, s in entries.items() if not n.endswith("_tracked")}
    lines = (
        f'"{network}": {{\n'
        + ",\n".join(f'"{name}": {json.dumps(shape)}' for name, shape in entries.items())
        + "\n}"
        for network, entries in found.items()
    )
    (HERE / "backbone_names.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
