"""A small FastFCN (ResNet-18 + JPU + PSP) on generated street scenes; takes minutes on two cores.

python train.py --config configs/demo.py

`make demo` trains this, evaluates it on the held-out split and draws predictions.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.model.update(
        backbone="resnet18",
        base_width=16,
        neck_channels=32,
        head_channels=32,
        auxiliary_channels=16,
    )
    c.data.update(
        name="synthetic",
        crop_size=(128, 192),
        resize_scale=(256, 128),
        ratio_range=(0.8, 1.25),
        photometric=False,
        test_scale=(256, 128),
    )
    c.optim.update(lr=0.05, warmup_steps=20)
    c.train.update(
        steps=1500, batch_size=4, log_every=50, eval_every=750, save_every=250, pictures=4
    )
    c.eval.update(crop_size=(128, 192), stride=(64, 96))
    return apply_variant(c, variant, {})
