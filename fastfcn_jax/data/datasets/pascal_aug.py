"""SBD, the additional labels of Pascal VOC (Hariharan et al. 2011): 8498/2857 photographs."""

from pathlib import Path

from fastfcn_jax.data.datasets import layout, matlab
from fastfcn_jax.data.datasets.pascal_voc import NAMES, PALETTE
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source

INFO = DatasetInfo("pascal_aug", NAMES, PALETTE, tuple(range(21)))
LABELS = LabelTable(range(21), [], "SBD (0 = background, 1..20)")
SPLITS = {"trainval": ("train", "val")}
SPLIT_SIZES = {"train": 8_498, "val": 2_857, "trainval": 11_355}
# The folder as unpacked from benchmark.tgz, and as the official code renames it.
FOLDERS = ("benchmark_RELEASE/dataset", "VOCaug/dataset", "dataset")


def load(root: str, split: str) -> Source:
    """Reads img/ and cls/ (`.mat`) by the lists train.txt and val.txt; trainval is both.

    Raises:
      UserError: a folder, list or label is missing.
    """
    base = next((p for f in FOLDERS if (p := Path(root, f)).is_dir()), Path(root))
    holds = "the folder that holds benchmark_RELEASE/ (benchmark.tgz of SBD, unpacked)"
    images_folder = layout.folder(str(root) and str(base), "img", holds=holds)
    labels_folder = layout.folder(base, "cls", holds=holds)
    names, images, labels = [], [], []
    for part in SPLITS.get(split, (split,)):
        listing = base / f"{part}.txt"
        found = layout.listed_names(listing)
        names += found
        images += [layout.named(images_folder, f"{n}.jpg", str(listing)) for n in found]
        labels += [layout.named(labels_folder, f"{n}.mat", str(listing)) for n in found]
    pairs = layout.pair(images, labels, f"SBD {split}")
    files = matlab.MatFiles(pairs.images, pairs.labels, "GTcls.Segmentation")
    return EncodedSource(INFO, names, files, LABELS)
