"""The official code's EncNet + JPU on ADE20K, 120 epochs of batches of 16 at crops of 480.

python train.py --config configs/official_encnet_ade20k.py --config.data.root=DIR \\
    --config.init.backbone=resnet50-ebb6acbb.pth
python train.py --config configs/official_encnet_ade20k.py:trainval --config.data.root=DIR \\
    --config.init.checkpoint=runs/official_encnet_ade20k

Published multi-scale mIoU (official README): R50 42.75, R101 44.34 (`:r101`); without JPU R50 41.11
(`:dilated`), R101 44.65 (`:r101_dilated`). `:trainval` fine-tunes a trained model for 20 epochs on
train and val together, for the test server, where R101 scored 55.84. `:jpu_x` has no published
figure. Steps: 1263 batches (20 210 images) or 1388 (22 210) per epoch; incomplete batches are
dropped.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(lineage="official", head="enc", se_branch=True)
    c.data.update(name="ade20k", augmentation="official", crop_size=(480, 480), test_scale=(0, 0))
    c.loss.update(normalization="valid_pixels", auxiliary_weight=0.2)
    c.optim.update(
        lr=0.01, weight_decay=1e-4, end_lr=0.0, poly_reaches_end=False, head_lr_multiplier=10.0
    )
    c.train.update(steps=151_560, batch_size=16, eval_every=12_630)
    c.eval.update(protocol="official", crop_size=(480, 480), stride=(320, 320))
    c.published.update(miou_ms_flip=42.75, source="github.com/wuhuikai/FastFCN, README.md")
    r101 = {"model.backbone": "resnet101", "published.miou_ms_flip": 44.34}
    dilated = {"model.neck": "none", "model.output_stride": 8, "published.miou_ms_flip": 41.11}
    trainval = {
        "data.train_split": "trainval",
        "optim.lr": 0.001,
        "train.steps": 27_760,
        "train.eval_every": 6_940,
        "published.miou_ms_flip": 0.0,  # the test server's score is not an mIoU
    }
    return apply_variant(
        c,
        variant,
        {
            "dilated": dilated,
            "jpu_x": {"model.neck": "jpu_x", "published.miou_ms_flip": 0.0},
            "r101": r101,
            "r101_dilated": {**r101, **dilated, "published.miou_ms_flip": 44.65},
            "trainval": trainval,
            "r101_trainval": {**r101, **trainval},
        },
    )
