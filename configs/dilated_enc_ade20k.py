"""FastFCN's dilated twin (output stride 8, no JPU): EncNet on ADE20K.

80 000 or 160 000 (`:160k`) steps of 16 images.

python train.py --config configs/dilated_enc_ade20k.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 39.53 / 41.17, `:160k` 40.10 / 41.71
(mmsegmentation, configs/encnet/README.md); the second figure uses protocol `ms_flip_0x`.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="enc", se_branch=True, neck="none", output_stride=8)
    c.data.update(
        name="ade20k",
        crop_size=(512, 512),
        resize_scale=(2048, 512),
        test_scale=(2048, 512),
    )
    c.train.batch_size = 16
    c.eval.update(crop_size=(512, 512), stride=(341, 341))
    c.published.update(
        miou=39.53, miou_ms_flip=41.17, source="mmsegmentation 1.2.2, configs/encnet/README.md"
    )
    return apply_variant(
        c,
        variant,
        {
            "160k": {
                "train.steps": 160_000,
                "train.eval_every": 16_000,
                "published.miou": 40.1,
                "published.miou_ms_flip": 41.71,
            }
        },
    )
