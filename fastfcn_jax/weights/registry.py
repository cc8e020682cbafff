"""The published weights by name: addresses, checksums and configurations.

Addresses and file names are those of mmsegmentation 1.2.2's metafiles and of mmengine 0.10.7's hub
(`openmmlab.json`); those of the official code's backbones follow torch-encoding's model store. The
scores are in the configurations (`config.published`).
"""

import difflib
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.errors import UserError


class Entry(NamedTuple):
    """One published file.

    Attributes:
      name: the name here; a model has the name of its configuration.
      address: URL of the file; "" if only a page links to it.
      checksum: "sha256:" or "sha1:" and the first digits; "" if none is published.
      config: bare name of the configuration with its variant; "" for a backbone.
      licence: of the weights.
      source: the page or package that publishes it.
      file: its name in the cache.
    """

    name: str
    address: str
    checksum: str
    config: str
    licence: str
    source: str
    file: str

    @property
    def is_backbone(self) -> bool:
        return not self.config

    @property
    def bundled(self) -> Path | None:
        """The folder inside this package that has the model, in the hub's format; mostly None."""
        return Path(__file__).parent / self.file if self.name in _BUNDLED else None


# Trained here and part of the package, each in a folder beside this file.
_BUNDLED: dict[str, tuple[str, str, str]] = {}
_OPENMMLAB = "https://download.openmmlab.com"
# Configuration, mmsegmentation's config folder, file name, date and checksum.
_MODELS = (
    ("jpu_aspp_cityscapes", "fastfcn", "fastfcn_r50-d32_jpu_aspp_512x1024_80k_cityscapes",
     "20210928_053722-5d1a2648"),
    ("jpu_aspp_cityscapes:4x4", "fastfcn", "fastfcn_r50-d32_jpu_aspp_4x4_512x1024_80k_cityscapes",
     "20210924_214357-72220849"),
    ("jpu_psp_cityscapes", "fastfcn", "fastfcn_r50-d32_jpu_psp_512x1024_80k_cityscapes",
     "20210928_053722-57749bed"),
    ("jpu_psp_cityscapes:4x4", "fastfcn", "fastfcn_r50-d32_jpu_psp_4x4_512x1024_80k_cityscapes",
     "20210925_061841-77e87b0a"),
    ("jpu_enc_cityscapes", "fastfcn", "fastfcn_r50-d32_jpu_enc_512x1024_80k_cityscapes",
     "20210928_030036-78da5046"),
    ("jpu_enc_cityscapes:4x4", "fastfcn", "fastfcn_r50-d32_jpu_enc_4x4_512x1024_80k_cityscapes",
     "20210926_093217-e1eb6dbb"),
    ("jpu_aspp_ade20k", "fastfcn", "fastfcn_r50-d32_jpu_aspp_512x512_80k_ade20k",
     "20211013_190619-3aa40f2d"),
    ("jpu_aspp_ade20k:160k", "fastfcn", "fastfcn_r50-d32_jpu_aspp_512x512_160k_ade20k",
     "20211008_152246-27036aee"),
    ("jpu_psp_ade20k", "fastfcn", "fastfcn_r50-d32_jpu_psp_512x512_80k_ade20k",
     "20210930_225137-993d07c8"),
    ("jpu_psp_ade20k:160k", "fastfcn", "fastfcn_r50-d32_jpu_psp_512x512_160k_ade20k",
     "20211008_105455-e8f5a2fd"),
    ("jpu_enc_ade20k", "fastfcn", "fastfcn_r50-d32_jpu_enc_512x512_80k_ade20k",
     "20210930_225214-65aef6dd"),
    ("jpu_enc_ade20k:160k", "fastfcn", "fastfcn_r50-d32_jpu_enc_512x512_160k_ade20k",
     "20211008_105456-d875ce3c"),
    ("dilated_aspp_cityscapes", "deeplabv3", "deeplabv3_r50-d8_512x1024_80k_cityscapes",
     "20200606_113404-b92cfdd4"),
    ("dilated_psp_cityscapes", "pspnet", "pspnet_r50-d8_512x1024_80k_cityscapes",
     "20200606_112131-2376f12b"),
    ("dilated_enc_cityscapes", "encnet", "encnet_r50-d8_512x1024_80k_cityscapes",
     "20200622_003554-fc5c5624"),
    ("dilated_aspp_ade20k", "deeplabv3", "deeplabv3_r50-d8_512x512_80k_ade20k",
     "20200614_185028-0bb3f844"),
    ("dilated_aspp_ade20k:160k", "deeplabv3", "deeplabv3_r50-d8_512x512_160k_ade20k",
     "20200615_123227-5d0ee427"),
    ("dilated_psp_ade20k", "pspnet", "pspnet_r50-d8_512x512_80k_ade20k",
     "20200615_014128-15a8b914"),
    ("dilated_psp_ade20k:160k", "pspnet", "pspnet_r50-d8_512x512_160k_ade20k",
     "20200615_184358-1890b0bd"),
    ("dilated_enc_ade20k", "encnet", "encnet_r50-d8_512x512_80k_ade20k",
     "20200622_042412-44b46b04"),
    ("dilated_enc_ade20k:160k", "encnet", "encnet_r50-d8_512x512_160k_ade20k",
     "20200622_101059-b2db95e0"),
)  # fmt: skip
# ImageNet weights with mmsegmentation's stem (v1c).
_BACKBONES = ("resnet18_v1c-b5776b93", "resnet50_v1c-2cccc1ad", "resnet101_v1c-e67eebb6")
# ... and with the official code's stem; each is in a zip archive of the same name.
_OFFICIAL_BACKBONES = ("resnet50-ebb6acbb", "resnet101-2a57e44d", "resnet152-0d43d698")
# The official repository only links to its models from tables in its README.
_OFFICIAL = (
    "official_encnet_pcontext",
    "official_encnet_pcontext:dilated",
    "official_encnet_pcontext:r101",
    "official_encnet_pcontext:r101_dilated",
    "official_psp_pcontext",
    "official_psp_pcontext:dilated",
    "official_deeplab_pcontext",
    "official_deeplab_pcontext:dilated",
    "official_encnet_ade20k",
    "official_encnet_ade20k:dilated",
    "official_encnet_ade20k:r101",
    "official_encnet_ade20k:r101_dilated",
)
_OFFICIAL_PAGE = "https://github.com/wuhuikai/FastFCN"


def _model(config: str, page: str, stem: str, tail: str) -> Entry:
    file = f"{stem}_{tail}.pth"
    return Entry(
        name=config,
        address=f"{_OPENMMLAB}/mmsegmentation/v0.5/{page}/{stem}/{file}",
        checksum="sha256:" + tail.rpartition("-")[2],
        config=config,
        licence="apache-2.0",
        source=f"mmsegmentation 1.2.2, configs/{page}",
        file=file,
    )


def _backbone(stem: str) -> Entry:
    name, checksum = stem.split("-")
    return Entry(
        name=name,
        address=f"{_OPENMMLAB}/pretrain/third_party/{stem}.pth",
        checksum=f"sha256:{checksum}",
        config="",
        licence="apache-2.0",
        source="mmengine 0.10.7, hub/openmmlab.json",
        file=f"{stem}.pth",
    )


def _official_backbone(stem: str) -> Entry:
    name, checksum = stem.split("-")
    return Entry(
        name=f"{name}_official",
        address=f"https://hangzh.s3.amazonaws.com/encoding/models/{stem}.zip",
        checksum=f"sha1:{checksum}",
        config="",
        licence="mit",
        source="torch-encoding, models/model_store.py",
        file=f"{stem}.pth",
    )


def _official_model(config: str) -> Entry:
    file = f"{config.replace(':', '_')}.pth.tar"
    return Entry(config, "", "", config, "mit", _OFFICIAL_PAGE, file)


def _bundled_model(name: str, folder: str, config: str, licence: str) -> Entry:
    return Entry(name, "", "", config, licence, "in this package, docs/camvid.md", folder)


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *(_bundled_model(name, *row) for name, row in _BUNDLED.items()),
        *(_model(*row) for row in _MODELS),
        *map(_backbone, _BACKBONES),
        *map(_official_backbone, _OFFICIAL_BACKBONES),
        *map(_official_model, _OFFICIAL),
    )
}
# The publishers' own file names, with and without date and checksum.
_PUBLISHED = {
    published: entry.name
    for entry in ENTRIES.values()
    for published in (
        entry.file,
        entry.file.removesuffix(".pth"),
        *(stem for _, _, stem, tail in _MODELS if entry.file == f"{stem}_{tail}.pth"),
    )
}


def is_known(name: str) -> bool:
    return name in ENTRIES or name in _PUBLISHED


def find(name: str) -> Entry:
    """The entry with this name, ours or the publisher's.

    Raises:
      UserError: there is none; the message suggests similar names.
    """
    if not is_known(name):
        near = difflib.get_close_matches(name, [*ENTRIES, *_PUBLISHED], 3)
        meant = f"did you mean {' or '.join(near)}?" if near else "see `fastfcn weights list`."
        raise UserError(f"{name}: no weights have that name; {meant}")
    return ENTRIES[_PUBLISHED.get(name, name)]
