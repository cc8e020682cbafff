"""FastFCN with a PSP head on CamVid (11 classes, 480x360), from random initial weights.

python train.py --config configs/jpu_psp_camvid.py --config.data.root=DIR

Variants for CPUs, with a ResNet-18 of half the width: `configs/jpu_psp_camvid.py:small` is a quick
trial on 192x256 crops; `:cpu` trains for 2400 steps on small crops of the photographs at half size;
`:balanced` starts from its weights and trains at full size with class weights, for thin classes:

python train.py --config configs/jpu_psp_camvid.py:balanced --config.data.root=DIR
    --config.init.checkpoint=runs/jpu_psp_camvid-cpu

`:shipped` is the training of the model inside the package, `--checkpoint camvid-small`.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant

NARROW = {
    "model.backbone": "resnet18",
    "model.base_width": 32,
    "model.neck_channels": 64,
    "model.head_channels": 64,
    "model.auxiliary_channels": 32,
    "optim.lr": 0.05,
}
# The square roots of the weights that "auto" gives: its full weights draw poles and pedestrians
# too large, at the cost of buildings.
TEMPERED = (0.96, 0.84, 2.34, 0.74, 1.59, 1.19, 2.27, 2.28, 1.45, 2.49, 2.68)
HALF_SIZE = NARROW | {
    "data.crop_size": (96, 128),
    "data.resize_scale": (240, 180),
    "data.test_scale": (240, 180),
    "train.steps": 2400,
    "train.eval_every": 200,
    "train.save_every": 200,
}


def get_config(variant: str = ""):
    c = base()
    c.data.name = "camvid"
    c.data.crop_size = (360, 480)
    c.data.resize_scale = (480, 360)
    c.data.test_scale = (480, 360)
    c.train.update(steps=8_000, batch_size=8, eval_every=500, save_every=500)
    c.eval.update(crop_size=(360, 480), stride=(240, 320))
    return apply_variant(
        c,
        variant,
        {
            "small": NARROW
            | {
                "data.crop_size": (192, 256),
                "optim.warmup_steps": 20,
                "train.steps": 500,
                "train.batch_size": 4,
                "train.log_every": 20,
                "train.eval_every": 250,
                "train.save_every": 100,
            },
            "cpu": HALF_SIZE,
            "balanced": NARROW
            | {
                "data.crop_size": (192, 256),
                "loss.class_weights": ("auto",),
                "optim.lr": 0.03,
                "train.ema_decay": 0.995,
                "train.steps": 2000,
                "train.eval_every": 250,
                "train.save_every": 250,
            },
            "shipped": NARROW
            | {
                "model.neck_channels": 80,
                "model.head_channels": 96,
                "data.crop_size": (192, 256),
                "data.ratio_range": (0.6, 1.6),
                "loss.class_weights": TEMPERED,
                "optim.warmup_steps": 100,
                "train.ema_decay": 0.998,
                "train.ema_warmup": True,  # or early validations see half-random weights
                "train.steps": 5000,
                "train.eval_every": 500,
                "train.save_every": 250,
            },
        },
    )
