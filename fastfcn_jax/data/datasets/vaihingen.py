"""ISPRS Vaihingen: 16/17 infrared orthophotos of about 2500x2000 at 9 cm, 6 classes."""

from pathlib import Path

from fastfcn_jax.data.datasets import isprs, layout
from fastfcn_jax.data.source import EncodedSource, Source
from fastfcn_jax.errors import UserError

INFO = isprs.info("vaihingen")
LABELS = isprs.tile_labels("Vaihingen")
# Areas in the benchmark's split, as in mmsegmentation's tools/dataset_converters/vaihingen.py.
SPLITS = {
    "train": (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37),
    "val": (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38),
}
SPLIT_SIZES = {split: len(areas) for split, areas in SPLITS.items()}
ARCHIVE = "ISPRS_semantic_labeling_Vaihingen"
ERODED = f"{ARCHIVE}_ground_truth_eroded_COMPLETE"


def load(root: str, split: str) -> Source:
    """Reads the two published archives, unpacked in folders of their names, or tiles.

    Labels are those with eroded boundaries, as in mmsegmentation, which cuts `img_dir/` and
    `ann_dir/` from them.

    Raises:
      UserError: neither layout is found, or an image has no label.
    """
    what = f"Vaihingen {split}"
    if str(root) and Path(root, "img_dir").is_dir():
        images, labels = layout.tiles(root, split)
        files = layout.pair(images, labels, what)
        return EncodedSource(INFO, [p.stem for p in images], files, LABELS)
    holds = f"the Vaihingen folder that holds {ARCHIVE}/top/ and {ERODED}/"
    images_folder = layout.folder(root, ARCHIVE, "top", holds=holds)
    labels_folder = layout.folder(root, ERODED, holds=holds)
    if split not in SPLITS:
        raise UserError(f"{what}: no such split; there are {' and '.join(SPLITS)}.")
    images = [
        path
        for area in SPLITS[split]
        if (path := images_folder / f"top_mosaic_09cm_area{area}.tif").is_file()
    ]
    labels = [labels_folder / f"{p.stem}_noBoundary.tif" for p in images]
    files = layout.pair(images, labels, what)
    return EncodedSource(INFO, [p.stem for p in images], files, isprs.ColorLabels("Vaihingen"))
