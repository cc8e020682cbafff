"""FastFCN with an ASPP (DeepLabV3) head on Cityscapes.

80 000 steps of 8 (4x2) or 16 (`:4x4`) images.

python train.py --config configs/jpu_aspp_cityscapes.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 79.12 / 80.58, `:4x4` 79.52 / 80.91
(mmsegmentation, configs/fastfcn/README.md).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="aspp")
    c.published.update(
        miou=79.12, miou_ms_flip=80.58, source="mmsegmentation 1.2.2, configs/fastfcn/README.md"
    )
    return apply_variant(
        c,
        variant,
        {
            "4x4": {
                "train.batch_size": 16,
                "published.miou": 79.52,
                "published.miou_ms_flip": 80.91,
            }
        },
    )
