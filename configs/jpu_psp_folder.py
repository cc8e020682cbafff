"""FastFCN with a PSP head on a folder of your own photos and labels; see docs/datasets.md.

python train.py --config configs/jpu_psp_folder.py --config.data.root=DIR

Photos are read at their own size. If possible, start from weights trained on a large data set:
`--config.init.checkpoint=DIR --config.init.reset_head=True`.
"""

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant


def get_config(variant: str = ""):
    c = base()
    c.data.name = "folder"
    c.data.crop_size = (512, 512)
    c.data.resize_scale = (2048, 512)
    c.data.test_scale = (2048, 512)
    c.train.update(steps=20_000, eval_every=1_000, save_every=1_000)
    c.eval.update(crop_size=(512, 512), stride=(341, 341))
    return apply_variant(c, variant, {})
