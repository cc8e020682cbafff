"""The official code's EncNet + JPU on COCO in VOC's classes, to pretrain for Pascal VOC.

python train.py --config configs/official_encnet_coco.py --config.data.root=DIR \\
    --config.init.backbone=resnet50-ebb6acbb.pth

30 epochs of batches of 16. `official_encnet_voc` continues from it. The options' defaults for this
data set; no mIoU is published. Variants: without JPU (`:dilated`), `:jpu_x`, `:r101`. Steps: 30
epochs of 5781 batches, which is an estimate: training begins by saying how many images of train2017
pass the filter (here 92 500).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(lineage="official", head="enc", se_branch=True)
    c.data.update(
        name="coco",
        augmentation="official",
        crop_size=(480, 480),
        test_scale=(0, 0),
        padding_label=0,
    )
    c.loss.update(normalization="valid_pixels", auxiliary_weight=0.2)
    c.optim.update(
        lr=0.01, weight_decay=1e-4, end_lr=0.0, poly_reaches_end=False, head_lr_multiplier=10.0
    )
    c.train.update(steps=173_430, batch_size=16, eval_every=17_343)
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
