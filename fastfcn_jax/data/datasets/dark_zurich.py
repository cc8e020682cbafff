"""Dark Zurich: 50 labelled night photographs of 1920x1080, to test Cityscapes models on."""

from fastfcn_jax.data.datasets import cityscapes, layout
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, Source
from fastfcn_jax.errors import UserError

INFO = DatasetInfo(
    "dark_zurich", cityscapes.INFO.class_names, cityscapes.INFO.palette, tuple(range(19))
)
LABELS = cityscapes.TRAIN_IDS
SPLIT_SIZES = {"val": 50}
SUFFIX = "_rgb_anon.png"


def load(root: str, split: str) -> Source:
    """Reads `rgb_anon/val/night/*/X_rgb_anon.png` with `gt/val/night/*/X_gt_labelTrainIds.png`.

    Raises:
      UserError: a split other than val, a missing folder, or an image without a label.
    """
    if split != "val":
        raise UserError(
            f"Dark Zurich {split}: only val has labels, to test a Cityscapes model on; "
            "set data.val_split='val', and train on Cityscapes."
        )
    holds = "the Dark Zurich folder that holds rgb_anon/ and gt/ (Dark_Zurich_val_anon.zip)"
    images_folder = layout.folder(root, "rgb_anon", "val", "night", holds=holds)
    labels_folder = layout.folder(root, "gt", "val", "night", holds=holds)
    images = layout.pictures(images_folder, suffixes=(SUFFIX,))
    ids = [p.name.removesuffix(SUFFIX) for p in images]
    labels = [
        labels_folder / p.parent.relative_to(images_folder) / f"{name}_gt_labelTrainIds.png"
        for p, name in zip(images, ids, strict=True)
    ]
    return EncodedSource(INFO, ids, layout.pair(images, labels, "Dark Zurich val"), LABELS)
