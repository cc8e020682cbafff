"""COCO-Stuff 10k: 9000/1000 photographs, 171 classes of things and stuff."""

from pathlib import Path

from fastfcn_jax.data.datasets import layout, matlab
from fastfcn_jax.data.datasets.coco_stuff164k import IDS, NAMES, PALETTE
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, LabelTable, Source

INFO = DatasetInfo("coco_stuff10k", NAMES, PALETTE, tuple(i + 1 for i in IDS))
# The ids of the 164k version plus 1, since 0 is "unlabelled" here.
LABELS = LabelTable([i + 1 for i in IDS], [0], "COCO-Stuff 10k (ids 1..182, 0 = unlabelled)")
TRAIN_IDS = LabelTable(range(1, 172), [0], "COCO-Stuff 10k (train ids 1..171, 0 = unlabelled)")
SPLITS = {"train": "train", "val": "test"}  # the published split for evaluation is called "test"
SPLIT_SIZES = {"train": 9_000, "val": 1_000}


def load(root: str, split: str) -> Source:
    """Reads images/, annotations/ (.mat) and imageLists/ of cocostuff-10k-v1.1.zip.

    Without imageLists/, mmsegmentation's copy: `images/train2014/X.jpg` with
    `annotations/train2014/X_labelTrainIds.png`.
    """
    name = SPLITS.get(split, split)
    base, what = Path(root), f"COCO-Stuff 10k {split}"
    if str(root) and (base / "imageLists").is_dir():
        listing = base / "imageLists" / f"{name}.txt"
        names = layout.listed_names(listing)
        images = [layout.named(base / "images", f"{n}.jpg", str(listing)) for n in names]
        labels = [layout.named(base / "annotations", f"{n}.mat", str(listing)) for n in names]
        pairs = layout.pair(images, labels, what)
        files = matlab.MatFiles(pairs.images, pairs.labels, "S")
        return EncodedSource(INFO, names, files, LABELS)
    holds = "the COCO-Stuff 10k folder that holds images/, annotations/ and imageLists/"
    images_folder = layout.folder(root, "images", f"{name}2014", holds=holds)
    labels_folder = layout.folder(root, "annotations", f"{name}2014", holds=holds)
    images = layout.pictures(images_folder, suffixes=(".jpg",), recursive=False)
    labels = [labels_folder / f"{p.stem}_labelTrainIds.png" for p in images]
    files = layout.pair(images, labels, what)
    return EncodedSource(INFO, [p.stem for p in images], files, TRAIN_IDS)
