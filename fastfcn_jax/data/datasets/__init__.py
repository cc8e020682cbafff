"""The data sets by name; a new one is one file here and one line in the table."""

from pathlib import Path

from fastfcn_jax.data.datasets import camvid, cityscapes, folder, synthetic
from fastfcn_jax.data.source import DatasetInfo, Sample, Source
from fastfcn_jax.errors import UserError

__all__ = ["DATASETS", "DatasetInfo", "Sample", "Source", "info", "load"]

# Modules with load(root, split) and, but for `folder`, the constant INFO.
DATASETS = {
    "camvid": camvid,
    "cityscapes": cityscapes,
    "folder": folder,
    "synthetic": synthetic,
}


def load(name: str, root: str, split: str) -> Source:
    """Opens a split of a data set that lies in `root` in its own published layout.

    Raises:
      UserError: unknown name, missing folder, or an image without a label.
    """
    return _module(name).load(root, split)


def info(name: str, root: str) -> DatasetInfo:
    """Classes and colours of a data set; only `folder` has them in `root`.

    Raises:
      UserError: unknown name, or a folder without classes.json.
    """
    module = _module(name)
    if module is folder:
        return folder.read_classes(Path(root, "classes.json"))[0]
    return module.INFO


def _module(name: str):
    if name not in DATASETS:
        raise UserError(f"data.name: unknown data set '{name}'; known: {', '.join(DATASETS)}.")
    return DATASETS[name]
