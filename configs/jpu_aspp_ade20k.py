"""FastFCN with an ASPP (DeepLabV3) head on ADE20K, 80 000 or 160 000 (`:160k`) steps of 16 images.

python train.py --config configs/jpu_aspp_ade20k.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 41.88 / 42.91, `:160k` 43.58 / 44.92
(mmsegmentation, configs/fastfcn/README.md); the second figure uses protocol `ms_flip_0x`.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="aspp")
    c.data.update(
        name="ade20k",
        crop_size=(512, 512),
        resize_scale=(2048, 512),
        test_scale=(2048, 512),
    )
    c.train.batch_size = 16
    c.eval.update(crop_size=(512, 512), stride=(341, 341))
    c.published.update(
        miou=41.88, miou_ms_flip=42.91, source="mmsegmentation 1.2.2, configs/fastfcn/README.md"
    )
    return apply_variant(
        c,
        variant,
        {
            "160k": {
                "train.steps": 160_000,
                "train.eval_every": 16_000,
                "published.miou": 43.58,
                "published.miou_ms_flip": 44.92,
            }
        },
    )
