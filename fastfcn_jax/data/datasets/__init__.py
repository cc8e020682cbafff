"""The data sets by name; a new one is one file here and one line in the table."""

from fastfcn_jax.data.datasets import camvid, cityscapes, folder, synthetic
from fastfcn_jax.data.source import DatasetInfo, Sample, Source
from fastfcn_jax.errors import UserError

__all__ = ["DATASETS", "DatasetInfo", "Sample", "Source", "load"]

# name -> load(root, split)
DATASETS = {
    "camvid": camvid.load,
    "cityscapes": cityscapes.load,
    "folder": folder.load,
    "synthetic": synthetic.load,
}


def load(name: str, root: str, split: str) -> Source:
    """Opens a split of a data set that lies in `root` in its own published layout.

    Raises:
      UserError: unknown name, missing folder, or an image without a label.
    """
    if name not in DATASETS:
        raise UserError(f"data.name: unknown data set '{name}'; known: {', '.join(DATASETS)}.")
    return DATASETS[name](root, split)
