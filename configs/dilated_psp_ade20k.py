"""FastFCN's dilated twin (output stride 8, no JPU): PSPNet on ADE20K.

80 000 or 160 000 (`:160k`) steps of 16 images.

python train.py --config configs/dilated_psp_ade20k.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 41.13 / 41.94, `:160k` 42.48 / 43.44
(mmsegmentation, configs/pspnet/README.md); the second figure uses protocol `ms_flip_0x`.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(neck="none", output_stride=8)
    c.data.update(
        name="ade20k",
        crop_size=(512, 512),
        resize_scale=(2048, 512),
        test_scale=(2048, 512),
    )
    c.train.batch_size = 16
    c.eval.update(crop_size=(512, 512), stride=(341, 341))
    c.published.update(
        miou=41.13, miou_ms_flip=41.94, source="mmsegmentation 1.2.2, configs/pspnet/README.md"
    )
    return apply_variant(
        c,
        variant,
        {
            "160k": {
                "train.steps": 160_000,
                "train.eval_every": 16_000,
                "published.miou": 42.48,
                "published.miou_ms_flip": 43.44,
            }
        },
    )
