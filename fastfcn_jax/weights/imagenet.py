"""ImageNet weights of backbones by name: OpenMMLab's, torchvision's, timm's, Paddle's.

Addresses and file names are those of mmengine 0.10.7's hub (`openmmlab.json`, `mmcls.json`), of
mmpretrain's `configs/resnet/metafile.yml`, of torchvision 0.28.0, timm 1.0.31 and PaddleClas. The
backbones of the official code follow torch-encoding's model store. Not listed: those of timm whose
photographs are normalised otherwise, or that have no licence.
"""

import re
from typing import Any

from fastfcn_jax.weights.entry import Entry

_OPENMMLAB = "https://download.openmmlab.com"
# ImageNet weights with mmsegmentation's stem (v1c).
_V1C = ("resnet18_v1c-b5776b93", "resnet50_v1c-2cccc1ad", "resnet101_v1c-e67eebb6")
# Name here, and the file of mmpretrain (once mmclassification): v1 with the plain stem, v1c, v1d.
_MMPRETRAIN = {
    "resnet18_v1": "resnet18_8xb32_in1k_20210831-fbbb1da6",
    "resnet34_v1": "resnet34_8xb32_in1k_20210831-f257d4e6",
    "resnet50_v1": "resnet50_8xb32_in1k_20210831-ea4938fc",
    "resnet101_v1": "resnet101_8xb32_in1k_20210831-539c63f8",
    "resnet152_v1": "resnet152_8xb32_in1k_20210901-4d7582fa",
    "resnet152_v1c": "resnetv1c152_8xb32_in1k_20220214-c013291f",
    "resnet50_v1d": "resnetv1d50_b32x8_imagenet_20210531-db14775a",
    "resnet101_v1d": "resnetv1d101_b32x8_imagenet_20210531-6e13bcd3",
    "resnet152_v1d": "resnetv1d152_b32x8_imagenet_20210531-278cf22a",
}
# With the official code's stem; each is in a zip archive of the same name.
_OFFICIAL = ("resnet50-ebb6acbb", "resnet101-2a57e44d", "resnet152-0d43d698")
# torchvision's IMAGENET1K_V1, and behind the colon IMAGENET1K_V2.
_TORCHVISION = {
    "resnet18": "f37072fd",
    "resnet34": "b627a593",
    "resnet50": "0676ba61:11ad3fa6",
    "resnet101": "63fe2227:cd907fc2",
    "resnet152": "394f9c45:f82ba261",
    "resnext50_32x4d": "7cdf4587:1a0047aa",
    "wide_resnet50_2": "95faca4d:9ba9bcbe",
}
# timm's architecture, and its weights' tags, the default one first. c, d and s have a deep stem
# (s the official code's), d averages in the shortcuts.
_TIMM = {
    "resnet18": "a1_in1k a2_in1k a3_in1k tv_in1k fb_ssl_yfcc100m_ft_in1k fb_swsl_ig1b_ft_in1k "
    "gluon_in1k",
    "resnet18d": "ra2_in1k",
    "resnet34": "a1_in1k a2_in1k a3_in1k bt_in1k tv_in1k gluon_in1k",
    "resnet34d": "ra2_in1k",
    "resnet50": "a1_in1k a1h_in1k a2_in1k a3_in1k b1k_in1k b2k_in1k c1_in1k c2_in1k d_in1k "
    "ram_in1k am_in1k ra_in1k bt_in1k tv_in1k tv2_in1k fb_ssl_yfcc100m_ft_in1k "
    "fb_swsl_ig1b_ft_in1k gluon_in1k",
    "resnet50c": "gluon_in1k",
    "resnet50d": "ra2_in1k a1_in1k a2_in1k a3_in1k gluon_in1k",
    "resnet50s": "gluon_in1k",
    "resnet101": "a1h_in1k a1_in1k a2_in1k a3_in1k tv_in1k tv2_in1k gluon_in1k",
    "resnet101c": "gluon_in1k",
    "resnet101d": "ra2_in1k gluon_in1k",
    "resnet101s": "gluon_in1k",
    "resnet152": "a1h_in1k a1_in1k a2_in1k a3_in1k tv_in1k tv2_in1k gluon_in1k",
    "resnet152c": "gluon_in1k",
    "resnet152d": "ra2_in1k gluon_in1k",
    "resnet152s": "gluon_in1k",
    "resnext50_32x4d": "a1h_in1k a1_in1k a2_in1k a3_in1k ra_in1k tv_in1k tv2_in1k "
    "fb_ssl_yfcc100m_ft_in1k fb_swsl_ig1b_ft_in1k gluon_in1k",
    "resnext50d_32x4d": "bt_in1k",
    "wide_resnet50_2": "racm_in1k tv_in1k tv2_in1k",
}
_TIMM_NAME = re.compile(r"(\w+?50|resnet\d+)([cds]?)((?:_32x4d|_2)?)")
# PaddleClas's ResNets; of 18 and 34 layers they have another first shortcut than all others.
_PADDLE = ("ResNet50", "ResNet101", "ResNet152", "ResNet50_vd", "ResNet101_vd", "ResNet152_vd")


def _fits(backbone: str, kind: str) -> dict[str, Any]:
    """Keys of `config.model`; `kind` "", "c", "d" or "s" as in timm's names."""
    keys = {
        "backbone": backbone,
        "stem": "deep" if kind else "plain",
        "average_downsample": kind == "d",
    }
    # The official deep stem has another width; a plain one fits every lineage.
    return {"lineage": "official" if kind == "s" else "mmseg", **keys} if kind else keys


def _v1c(stem: str) -> Entry:
    name, checksum = stem.split("-")
    return Entry(
        name=name,
        address=f"{_OPENMMLAB}/pretrain/third_party/{stem}.pth",
        checksum=f"sha256:{checksum}",
        config="",
        licence="apache-2.0",
        source="mmengine 0.10.7, hub/openmmlab.json",
        file=f"{stem}.pth",
        model=_fits(name.partition("_")[0], "c"),
    )


def _mmpretrain(name: str, stem: str) -> Entry:
    backbone, _, version = name.partition("_v1")
    return Entry(
        name=name,
        address=f"{_OPENMMLAB}/mmclassification/v0/resnet/{stem}.pth",
        checksum="sha256:" + stem.rpartition("-")[2],
        config="",
        licence="apache-2.0",
        source="mmpretrain 1.2.0, configs/resnet",
        file=f"{stem}.pth",
        model=_fits(backbone, version),
    )


def _official(stem: str) -> Entry:
    name, checksum = stem.split("-")
    return Entry(
        name=f"{name}_official",
        address=f"https://hangzh.s3.amazonaws.com/encoding/models/{stem}.zip",
        checksum=f"sha1:{checksum}",
        config="",
        licence="mit",
        source="torch-encoding, models/model_store.py",
        file=f"{stem}.pth",
        model=_fits(name, "s"),
    )


def _torchvision(backbone: str, checksum: str, version: int) -> Entry:
    file = f"{backbone}-{checksum}.pth"
    return Entry(
        name=f"torchvision/{backbone}" + ("" if version == 1 else f"_v{version}"),
        address=f"https://download.pytorch.org/models/{file}",
        checksum=f"sha256:{checksum}",
        config="",
        licence="bsd-3-clause",
        source=f"torchvision 0.28.0, IMAGENET1K_V{version}",
        file=file,
        model=_fits(backbone, ""),
    )


def _timm(architecture: str, tag: str) -> Entry:
    start, kind, end = _TIMM_NAME.findall(architecture)[0]
    name = f"timm/{architecture}.{tag}"
    licence = {"tv": "bsd-3-clause", "fb": "cc-by-nc-4.0"}.get(tag[:2], "apache-2.0")
    return Entry(
        name=name,
        address=f"hf://{name}/model.safetensors",
        checksum="",
        config="",
        licence=licence,
        source="timm 1.0.31, models/resnet.py",
        file=f"{name.replace('/', '_')}.safetensors",
        model=_fits(start + end, kind),
    )


def _paddle(architecture: str) -> Entry:
    file = f"{architecture}_pretrained.pdparams"
    backbone, _, vd = architecture.lower().partition("_v")
    return Entry(
        name=f"paddle/{architecture}",
        address=f"https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models/{file}",
        checksum="",
        config="",
        licence="apache-2.0",
        source="PaddleClas, legendary_models/resnet.py",
        file=file,
        model=_fits(backbone, vd),
    )


BACKBONES: tuple[Entry, ...] = (
    *map(_v1c, _V1C),
    *(_mmpretrain(*row) for row in _MMPRETRAIN.items()),
    *map(_official, _OFFICIAL),
    *(
        _torchvision(backbone, checksum, version)
        for backbone, checksums in _TORCHVISION.items()
        for version, checksum in enumerate(checksums.split(":"), 1)
    ),
    *(_timm(architecture, tag) for architecture, tags in _TIMM.items() for tag in tags.split()),
    *map(_paddle, _PADDLE),
)
# timm's architectures stand for their default weights, as in timm.
DEFAULTS = {f"timm/{name}": f"timm/{name}.{tags.split()[0]}" for name, tags in _TIMM.items()}
