"""A real network that compiles quickly, on drawn images."""

from fastfcn_jax.config import base


def config():
    c = base.get_config()
    c.model.update(
        backbone="resnet18", base_width=8, neck_channels=8, head_channels=8, auxiliary_channels=8
    )
    c.data.update(name="synthetic", crop_size=(64, 64))
    c.train.batch_size = 2
    return c
