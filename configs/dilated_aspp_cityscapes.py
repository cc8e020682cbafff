"""FastFCN's dilated twin (output stride 8, no JPU): DeepLabV3 on Cityscapes.

80 000 steps of 8 images.

python train.py --config configs/dilated_aspp_cityscapes.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 79.32 / 80.57
(mmsegmentation, configs/deeplabv3/README.md).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="aspp", neck="none", output_stride=8)
    c.published.update(
        miou=79.32, miou_ms_flip=80.57, source="mmsegmentation 1.2.2, configs/deeplabv3/README.md"
    )
    return apply_variant(c, variant, {})
