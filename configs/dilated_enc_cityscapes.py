"""FastFCN's dilated twin (output stride 8, no JPU): EncNet on Cityscapes, 80 000 steps of 8 images.

python train.py --config configs/dilated_enc_cityscapes.py --config.data.root=DIR

Published mIoU, single scale / multi-scale + flip: 77.94 / 79.13
(mmsegmentation, configs/encnet/README.md).
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(head="enc", se_branch=True, neck="none", output_stride=8)
    c.published.update(
        miou=77.94, miou_ms_flip=79.13, source="mmsegmentation 1.2.2, configs/encnet/README.md"
    )
    return apply_variant(c, variant, {})
