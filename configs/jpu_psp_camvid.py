"""FastFCN with a PSP head on CamVid (11 classes, 480x360), from random initial weights.

python train.py --config configs/jpu_psp_camvid.py --config.data.root=DIR

On two CPU cores take the small variant, `configs/jpu_psp_camvid.py:small`: ResNet-18 of half
the width on 192x256 crops.
"""

from fastfcn_jax.base_config import get_config as base
from fastfcn_jax.config import apply_variant


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
            "small": {
                "model.backbone": "resnet18",
                "model.base_width": 32,
                "model.neck_channels": 64,
                "model.head_channels": 64,
                "model.auxiliary_channels": 32,
                "data.crop_size": (192, 256),
                "optim.lr": 0.05,
                "optim.warmup_steps": 20,
                "train.steps": 500,
                "train.batch_size": 4,
                "train.log_every": 20,
                "train.eval_every": 250,
                "train.save_every": 100,
            }
        },
    )
