"""Writes the experiment file for a folder of photographs."""

from pathlib import Path

import numpy as np

from fastfcn_jax import text
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.doctor.photo_kind import Moments

NAME = "fastfcn_config.py"


Pixels = tuple[int, ...]


def _pixels(sizes: list[tuple[int, int]]) -> tuple[Pixels, Pixels, Pixels]:
    """The photos' size (long side first), the crop, and the crop of the variant `:small`."""
    height, width = (int(x) for x in np.median(sizes, axis=0))
    factor = min(1.0, 2048 / max(height, width), 1024 / min(height, width))
    scale = (round(max(height, width) * factor), round(min(height, width) * factor))
    height, width = round(height * factor), round(width * factor)
    crop = tuple(max(min(512, s) // 32 * 32, 32) for s in (height, width))
    small = tuple(max(min(256, s // 2) // 32 * 32, 32) for s in (height, width))
    return scale, crop, small


def _kind(pixel: PixelType, measured: Moments | None) -> str:
    """Lines that say what the photos hold, unless it is 8-bit RGB."""
    if pixel == RGB or measured is None:
        return ""
    pairs = "".join(f"        {pair},\n" for pair in measured.scaling)
    return (
        f'    c.data.channels, c.data.dtype = {pixel.channels}, "{pixel.dtype}"\n'
        "    c.data.scaling = (  # (mean, deviation) of each channel, from train.txt's photos\n"
        f"{pairs}    )\n"
    )


def configuration(
    folder: Path,
    sizes: list[tuple[int, int]],
    count: int,
    pixel: PixelType = RGB,
    measured: Moments | None = None,
) -> str:
    """The text of an experiment file that fits the kind, size and number of the photos."""
    scale, crop, small = _pixels(sizes)
    batch = min(8, count)
    steps = int(np.clip(count * 100 // batch, 2_000, 40_000))
    return f'''"""FastFCN with a PSP head on the photos in {text.shown(folder.resolve().name)}.

fastfcn train --config {NAME}          ResNet-50, for a GPU
fastfcn train --config {NAME}:small    ResNet-18 of half the width, for a CPU

Better from weights trained on a large data set, if you have some:
--config.init.checkpoint=DIR --config.init.reset_head=True
"""

from pathlib import Path

from fastfcn_jax.config.base import get_config as base
from fastfcn_jax.config.experiment import apply_variant

SMALL = {{
    "model.backbone": "resnet18",
    "model.base_width": 32,
    "model.neck_channels": 64,
    "model.head_channels": 64,
    "model.auxiliary_channels": 32,
    "data.crop_size": {small},
    "optim.lr": 0.05,
    "optim.warmup_steps": 20,
    "train.steps": 500,
    "train.batch_size": {min(4, count)},
    "train.log_every": 20,
    "train.eval_every": 250,
    "train.save_every": 100,
}}


def get_config(variant: str = ""):
    c = base()
    c.data.name = "folder"
    c.data.root = str(Path(__file__).resolve().parent)  # the folder may be moved
{_kind(pixel, measured)}    c.data.crop_size = {crop}  # height, width
    c.data.resize_scale = {scale}  # the photos' own size, long side first
    c.data.test_scale = {scale}
    c.train.update(steps={steps}, batch_size={batch})
    c.train.update(eval_every={steps // 10}, save_every={steps // 10})
    c.eval.update(crop_size={crop}, stride={tuple(s * 2 // 3 for s in crop)})
    return apply_variant(c, variant, {{"small": SMALL}})
'''
