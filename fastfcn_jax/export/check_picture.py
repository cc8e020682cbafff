"""The photograph on which a file is compared with its source if none of the user's are given."""

from pathlib import Path

import numpy as np

from fastfcn_jax.data import rasters
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.rescale import resize_image


def photograph(size: tuple[int, int], image: Path | None, scaling, pixel: PixelType):
    """A photograph of the program's size: the given one, scaled, or a generated street scene."""
    if image is None:
        return _scene(size, scaling, pixel)
    try:
        data = image.read_bytes()
    except OSError as error:
        raise UserError(f"--image {image}: cannot be read ({error.strerror}).") from error
    return resize_image(rasters.image(data, str(image), pixel), size), image.name


def _scene(size: tuple[int, int], scaling, pixel: PixelType):
    """A generated street scene; for other kinds of images its colours in the range of theirs."""
    drawn = street_scene.Scene(np.random.default_rng(0), size).draw()[0]
    if pixel == RGB:
        return drawn, "drawn street scene"
    repeated = drawn[..., np.arange(pixel.channels) % 3].astype(np.float32)
    values = np.array(scaling.mean) + (repeated / 64 - 2) * np.array(scaling.std)
    if pixel.dtype != "float32":
        values = np.clip(np.round(values), 0, np.iinfo(pixel.dtype).max)
    return values.astype(pixel.dtype), "drawn street scene in the range of the images"
