"""ISPRS Potsdam: 24/14 orthophotos of 6000x6000 at 5 cm, 6 classes."""

from pathlib import Path

from fastfcn_jax.data.datasets import isprs, layout
from fastfcn_jax.data.source import EncodedSource, Source
from fastfcn_jax.errors import UserError

INFO = isprs.info("potsdam")
LABELS = isprs.tile_labels("Potsdam")
# The benchmark's split, as in mmsegmentation 1.2.2, tools/dataset_converters/potsdam.py.
# fmt: off
SPLITS = {
    "train": (
        "2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11",
        "5_12", "6_10", "6_11", "6_12", "6_7", "6_8", "6_9", "7_10", "7_11", "7_12", "7_7", "7_8",
        "7_9",
    ),
    "val": (
        "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13",
        "6_14", "6_15", "7_13",
    ),
}
# fmt: on
SPLIT_SIZES = {split: len(areas) for split, areas in SPLITS.items()}
IMAGES, ERODED = "2_Ortho_RGB", "5_Labels_all_noBoundary"


def load(root: str, split: str) -> Source:
    """Reads `2_Ortho_RGB/` with `5_Labels_all_noBoundary/`, or mmsegmentation's tiles.

    Raises:
      UserError: neither layout is found, or an image has no label.
    """
    what = f"Potsdam {split}"
    if str(root) and Path(root, "img_dir").is_dir():
        images, labels = layout.tiles(root, split)
        files = layout.pair(images, labels, what)
        return EncodedSource(INFO, [p.stem for p in images], files, LABELS)
    holds = f"the Potsdam folder that holds {IMAGES}/ and {ERODED}/"
    images_folder = layout.folder(root, IMAGES, holds=holds)
    labels_folder = layout.folder(root, ERODED, holds=holds)
    if split not in SPLITS:
        raise UserError(f"{what}: no such split; there are {' and '.join(SPLITS)}.")
    images = [
        path
        for area in SPLITS[split]
        if (path := images_folder / f"top_potsdam_{area}_RGB.tif").is_file()
    ]
    ids = [p.stem.removesuffix("_RGB") for p in images]
    labels = [labels_folder / f"{name}_label_noBoundary.tif" for name in ids]
    files = layout.pair(images, labels, what)
    return EncodedSource(INFO, ids, files, isprs.ColorLabels("Potsdam"))
