"""FastFCN's dilated twin (output stride 8, no JPU): PSPNet on Cityscapes, 80 000 steps of 8 images.

python train.py --config configs/dilated_psp_cityscapes.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 78.55 / 79.79
(mmsegmentation, configs/pspnet/README.md).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(neck="none", output_stride=8)
    c.published.update(
        miou=78.55, miou_ms_flip=79.79, source="mmsegmentation 1.2.2, configs/pspnet/README.md"
    )
    return apply_variant(c, variant, {})
