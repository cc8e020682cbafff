"""The data sets by name; a new one takes one module here and one line in the table."""

from pathlib import Path

from ml_collections import ConfigDict

from fastfcn_jax.data import mirror, pixel_type
from fastfcn_jax.data.datasets import (
    ade20k,
    camvid,
    cityscapes,
    class_list,
    coco_stuff10k,
    coco_stuff164k,
    coco_voc,
    dark_zurich,
    folder,
    loveda,
    mapillary,
    nighttime_driving,
    pascal_aug,
    pascal_context,
    pascal_voc,
    potsdam,
    synthetic,
    vaihingen,
)
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import DatasetInfo, Sample, Source
from fastfcn_jax.data.tfds import prepared
from fastfcn_jax.errors import UserError

__all__ = ["DATASETS", "DatasetInfo", "Sample", "Source", "info", "load", "open_split"]

# Each module has load(root, split); the published ones also INFO, LABELS and SPLIT_SIZES.
DATASETS = {
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "pascal_context": pascal_context,
    "camvid": camvid,
    "pascal_voc": pascal_voc,
    "pascal_aug": pascal_aug,
    "coco": coco_voc,
    "coco_stuff164k": coco_stuff164k,
    "coco_stuff10k": coco_stuff10k,
    "mapillary": mapillary,
    "loveda": loveda,
    "potsdam": potsdam,
    "vaihingen": vaihingen,
    "dark_zurich": dark_zurich,
    "nighttime_driving": nighttime_driving,
    "folder": folder,
    "synthetic": synthetic,
}


def open_split(data: ConfigDict, split: str) -> Source:
    """Opens a split of the data set that `config.data` describes; see `load`."""
    return load(data.name, data.root, split, pixel_type.of(data))


def load(name: str, root: str, split: str, pixel: PixelType = RGB) -> Source:
    """Opens a split of the data set in `root`.

    `root` holds the data set in its own published layout, or as prepared by TensorFlow Datasets
    in ArrayRecord files (`fastfcn prepare`). What is at an address, s3://…, is copied first.

    Args:
      pixel: type of the images; only `folder` has others than 8-bit RGB.

    Raises:
      UserError: unknown name, missing folder, or an image without a label.
    """
    module = _module(name)
    root = mirror.folder_of(root)
    if module is folder:
        return folder.load(root, split, pixel)
    if pixel != RGB:
        raise UserError(
            f"data.channels and data.dtype: {name} has {RGB}, not {pixel}; leave them at their "
            "defaults, or set data.name to 'folder' for images of your own."
        )
    directory = prepared.find(root, name)
    if directory is not None:
        return prepared.load(directory, split, module.INFO, module.LABELS)
    return module.load(root, split)


def info(name: str, root: str) -> DatasetInfo:
    """Classes and colours of a data set; only `folder` reads them from `root`.

    Raises:
      UserError: unknown name, or a folder without classes.json.
    """
    module = _module(name)
    if module is folder:
        return class_list.read(class_list.file_of(Path(mirror.folder_of(root)))).info
    return module.INFO


def _module(name: str):
    if name not in DATASETS:
        raise UserError(f"data.name: unknown data set '{name}'; known: {', '.join(DATASETS)}.")
    return DATASETS[name]
