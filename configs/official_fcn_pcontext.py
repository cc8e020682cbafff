"""The official code's FCN + JPU on Pascal Context (59 classes), 80 epochs of batches of 16.

python train.py --config configs/official_fcn_pcontext.py --config.data.root=DIR \\
    --config.init.backbone=resnet50-ebb6acbb.pth

The options' defaults for this data set, as the official repository has no script for it; no mIoU
is published. Variants: without JPU (`:dilated`), `:jpu_x`, `:r101`. Steps: 80 epochs of 312 batches
(4998 images; the last, incomplete batch is dropped).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(lineage="official", head="fcn")
    c.data.update(
        name="pascal_context", augmentation="official", crop_size=(480, 480), test_scale=(0, 0)
    )
    c.loss.update(normalization="valid_pixels", auxiliary_weight=0.2)
    c.optim.update(
        lr=0.001, weight_decay=1e-4, end_lr=0.0, poly_reaches_end=False, head_lr_multiplier=10.0
    )
    c.train.update(steps=24_960, batch_size=16, eval_every=3_120)
    c.eval.update(protocol="official", crop_size=(480, 480), stride=(320, 320))
    return apply_variant(
        c,
        variant,
        {
            "dilated": {"model.neck": "none", "model.output_stride": 8},
            "jpu_x": {"model.neck": "jpu_x"},
            "r101": {"model.backbone": "resnet101"},
        },
    )
