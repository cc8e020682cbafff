"""FastFCN with an Enc (EncNet) head and its SE loss on ADE20K.

80 000 or 160 000 (`:160k`) steps of 16 images.

python train.py --config configs/jpu_enc_ade20k.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 40.88 / 42.36, `:160k` 42.50 / 44.21
(mmsegmentation, configs/fastfcn/README.md); the second figure uses protocol `ms_flip_0x`.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="enc", se_branch=True)
    c.data.update(
        name="ade20k",
        crop_size=(512, 512),
        resize_scale=(2048, 512),
        test_scale=(2048, 512),
    )
    c.train.batch_size = 16
    c.eval.update(crop_size=(512, 512), stride=(341, 341))
    c.published.update(
        miou=40.88, miou_ms_flip=42.36, source="mmsegmentation 1.2.2, configs/fastfcn/README.md"
    )
    return apply_variant(
        c,
        variant,
        {
            "160k": {
                "train.steps": 160_000,
                "train.eval_every": 16_000,
                "published.miou": 42.5,
                "published.miou_ms_flip": 44.21,
            }
        },
    )
