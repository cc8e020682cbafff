"""The published weights by name: addresses, checksums and configurations.

Addresses and file names of models are those of mmsegmentation 1.2.2's metafiles, and of PaddleSeg's
page; `imagenet` has the backbones. The scores are in the configurations (`config.published`).
"""

import difflib

from ml_collections import ConfigDict

from fastfcn_jax.errors import UserError
from fastfcn_jax.weights.entry import Entry
from fastfcn_jax.weights.imagenet import BACKBONES, DEFAULTS

# Trained here and part of the package, each in a folder beside this file.
_BUNDLED = {"camvid-small": ("camvid_small", "jpu_psp_camvid:shipped", "cc-by-nc-4.0")}
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


def _official_model(config: str) -> Entry:
    file = f"{config.replace(':', '_')}.pth.tar"
    return Entry(config, "", "", config, "mit", _OFFICIAL_PAGE, file)


def _bundled_model(name: str, folder: str, config: str, licence: str) -> Entry:
    source = "in this package, docs/camvid.md"
    return Entry(name, "", "", config, licence, source, folder, is_inside=True)


_PADDLESEG = "fastfcn_resnet50_os8_ade20k_480x480_120k"
_PADDLESEG_MODEL = Entry(
    name="paddleseg_fastfcn_ade20k",
    address=f"https://bj.bcebos.com/paddleseg/dygraph/ade20k/{_PADDLESEG}/model.pdparams",
    checksum="",
    config="paddleseg_fastfcn_ade20k",
    licence="apache-2.0",
    source="PaddleSeg, configs/fastfcn",
    file=f"{_PADDLESEG}.pdparams",
)


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *(_bundled_model(name, *row) for name, row in _BUNDLED.items()),
        *(_model(*row) for row in _MODELS),
        *BACKBONES,
        *map(_official_model, _OFFICIAL),
        _PADDLESEG_MODEL,
    )
}
# The publishers' own file names, with and without date and checksum.
_PUBLISHED = DEFAULTS | {
    published: entry.name
    for entry in ENTRIES.values()
    for published in (
        entry.file,
        entry.file.removesuffix(".pth"),
        *(stem for _, _, stem, tail in _MODELS if entry.file == f"{stem}_{tail}.pth"),
        *((_PADDLESEG, f"paddleseg/{_PADDLESEG}") if entry == _PADDLESEG_MODEL else ()),
    )
}


def is_known(name: str) -> bool:
    return name in ENTRIES or name in _PUBLISHED


def fitting(model: ConfigDict) -> list[str]:
    """Names of the backbones that fit `config.model`, at the published width."""
    # PaddleSeg's stem is as wide as mmsegmentation's, and its lineage takes the same backbones.
    lineage = "official" if model["lineage"] == "official" else "mmseg"
    own = dict(model.items()) | {"lineage": lineage}
    return [
        entry.name
        for entry in BACKBONES
        if own["base_width"] == 64 and all(own[key] == x for key, x in entry.model.items())
    ]


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
