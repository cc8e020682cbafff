"""Nighttime Driving: 50 labelled night photographs of 1920x1080, to test Cityscapes models on."""

from fastfcn_jax.data.datasets import cityscapes, layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, Source
from fastfcn_jax.errors import UserError

INFO = DatasetInfo(
    "nighttime_driving", cityscapes.INFO.class_names, cityscapes.INFO.palette, tuple(range(19))
)
LABELS = cityscapes.TRAIN_IDS
SPLIT_SIZES = {"val": 50}
SUFFIX = "_leftImg8bit.png"


def load(root: str, split: str) -> Source:
    """Reads leftImg8bit/test/night/ with gtCoarse_daytime_trainvaltest/test/night/.

    The published split is called "test"; here it is "val", as it is there to be evaluated on.

    Raises:
      UserError: a split other than val, a missing folder, or an image without a label.
    """
    if split != "val":
        raise UserError(
            f"Nighttime Driving {split}: there is only val, to test a Cityscapes model on; "
            "set data.val_split='val', and train on Cityscapes."
        )
    holds = "the NighttimeDrivingTest folder that holds leftImg8bit/"
    images_folder = layout.folder(root, "leftImg8bit", "test", "night", holds=holds)
    labels_folder = layout.folder(
        root, "gtCoarse_daytime_trainvaltest", "test", "night", holds=holds
    )
    images = layout.pictures(images_folder, suffixes=(SUFFIX.lower(),), recursive=False)
    ids = [p.name.removesuffix(SUFFIX) for p in images]
    labels = [labels_folder / f"{name}_gtCoarse_labelTrainIds.png" for name in ids]
    return EncodedSource(INFO, ids, layout.pair(images, labels, "Nighttime Driving"), LABELS)
