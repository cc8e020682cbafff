"""PaddleSeg's FastFCN on ADE20K: JPU over output stride 8, Enc head with lateral maps.

python train.py --config configs/paddleseg_fastfcn_ade20k.py --config.data.root=DIR \\
    --config.init.backbone=paddle/ResNet50_vd
fastfcn weights get paddleseg_fastfcn_ade20k

Published mIoU (PaddleSeg, configs/fastfcn): 43.76, with protocol `flip` 44.11, with `paddleseg_ms`
44.91. The recipe is `fastfcn_resnet50_os8_ade20k_480x480_120k`, whose learning rate is for four
devices of 4 images (PaddleSeg's guide). It starts from `resnet50_vd_ssld_v2`, which was trained by
distillation; `paddle/ResNet50_vd` is the plainly trained one.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(
        lineage="paddleseg",
        average_downsample=True,
        output_stride=8,
        head="enc",
        se_branch=True,
        lateral=True,
        auxiliary_channels=512,
    )
    c.data.update(
        name="ade20k",
        augmentation="paddleseg",
        crop_size=(480, 480),
        ratio_step=0.25,
        scaling=((127.5, 127.5),) * 3,  # mean and deviation 0.5 of values from 0 to 1
        test_scale=(0, 0),
    )
    c.loss.update(normalization="valid_pixels")
    c.optim.update(weight_decay=4e-5, end_lr=0.0, poly_reaches_end=False)
    c.train.update(steps=120_000, batch_size=16, eval_every=12_000)
    c.eval.update(ratios=(0.75, 1.0, 1.25))
    c.published.update(
        miou=43.76,
        miou_flip=44.11,
        miou_ms_flip=44.91,
        source="PaddleSeg, configs/fastfcn/README.md",
    )
    return apply_variant(c, variant, {})
