"""The official code's EncNet + JPU on SBD (`pascal_aug`), after pretraining on COCO.

python train.py --config configs/official_encnet_voc.py --config.data.root=DIR \\
    --config.init.backbone=resnet50-ebb6acbb.pth

Continue from COCO with --config.init.checkpoint=runs/official_encnet_coco in place of the backbone.
50 epochs of batches of 16 on trainval; `:voc` fine-tunes the result on Pascal VOC's own trainval at
a tenth of the rate, from --config.init.checkpoint=runs/official_encnet_voc. `:r101` is the larger
one. The options' defaults for these data sets; no mIoU is published. As in the official code val is
part of the training; for a score on other images set --config.data.train_split=train. Steps: 50
epochs of 709 (11 355 images) or 182 batches (2913 images).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(lineage="official", head="enc", se_branch=True)
    c.data.update(
        name="pascal_aug",
        augmentation="official",
        crop_size=(480, 480),
        test_scale=(0, 0),
        train_split="trainval",
        padding_label=0,
    )
    c.loss.update(normalization="valid_pixels", auxiliary_weight=0.2)
    c.optim.update(
        lr=0.001, weight_decay=1e-4, end_lr=0.0, poly_reaches_end=False, head_lr_multiplier=10.0
    )
    c.train.update(steps=35_450, batch_size=16, eval_every=3_545)
    c.eval.update(protocol="official", crop_size=(480, 480), stride=(320, 320))
    return apply_variant(
        c,
        variant,
        {
            "voc": {
                "data.name": "pascal_voc",
                "optim.lr": 0.0001,
                "train.steps": 9_100,
                "train.eval_every": 910,
            },
            "r101": {"model.backbone": "resnet101"},
        },
    )
