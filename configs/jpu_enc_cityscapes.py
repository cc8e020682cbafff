"""FastFCN with an Enc (EncNet) head and its SE loss on Cityscapes.

80 000 steps of 8 (4x2) or 16 (`:4x4`) images.

python train.py --config configs/jpu_enc_cityscapes.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 77.97 / 79.92, `:4x4` 78.60 / 80.25
(mmsegmentation, configs/fastfcn/README.md).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="enc", se_branch=True)
    c.published.update(
        miou=77.97, miou_ms_flip=79.92, source="mmsegmentation 1.2.2, configs/fastfcn/README.md"
    )
    return apply_variant(
        c,
        variant,
        {
            "4x4": {
                "train.batch_size": 16,
                "published.miou": 78.6,
                "published.miou_ms_flip": 80.25,
            }
        },
    )
