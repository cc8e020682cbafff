"""The official code's EncNet + JPU on Pascal Context (59 classes), 80 epochs of batches of 16.

python train.py --config configs/official_encnet_pcontext.py --config.data.root=DIR \\
    --config.init.backbone=resnet50-ebb6acbb.pth

Published mIoU (official README): 51.05, without JPU (`:dilated`) 49.91; multi-scale R101 54.03
(`:r101`), without JPU 52.60 (`:r101_dilated`).
`:jpu_x` has no published figure. Steps: 80 epochs of 312 batches (4998 images; the last, incomplete
batch is dropped).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(lineage="official", head="enc", se_branch=True)
    c.data.update(
        name="pascal_context", augmentation="official", crop_size=(480, 480), test_scale=(0, 0)
    )
    c.loss.update(normalization="valid_pixels", auxiliary_weight=0.2)
    c.optim.update(
        lr=0.001, weight_decay=1e-4, end_lr=0.0, poly_reaches_end=False, head_lr_multiplier=10.0
    )
    c.train.update(steps=24_960, batch_size=16, eval_every=3_120)
    c.eval.update(protocol="official", crop_size=(480, 480), stride=(320, 320))
    c.published.update(miou=51.05, source="github.com/wuhuikai/FastFCN, README.md")
    dilated = {"model.neck": "none", "model.output_stride": 8, "published.miou": 49.91}
    return apply_variant(
        c,
        variant,
        {
            "dilated": dilated,
            "jpu_x": {"model.neck": "jpu_x", "published.miou": 0.0},
            "r101": {
                "model.backbone": "resnet101",
                "published.miou": 0.0,
                "published.miou_ms_flip": 54.03,
            },
            "r101_dilated": {
                **dilated,
                "model.backbone": "resnet101",
                "published.miou": 0.0,
                "published.miou_ms_flip": 52.6,
            },
            "r101_jpu_x": {
                "model.backbone": "resnet101",
                "model.neck": "jpu_x",
                "published.miou": 0.0,
            },
        },
    )
