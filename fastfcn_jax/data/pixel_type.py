"""What the images of a data set hold: how many channels, and values of which type."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.errors import UserError

MAX_CHANNELS = 16
DTYPES = ("uint8", "uint16", "float32")
_BITS: dict[str, str] = dict(zip(DTYPES, ("8-bit", "16-bit", "floating-point"), strict=True))


class PixelType(NamedTuple):
    """Channels of an image and the NumPy type of its values: uint8, uint16 or float32."""

    channels: int = 3
    dtype: str = "uint8"

    def __str__(self) -> str:
        plural = "" if self.channels == 1 else "s"
        return f"{self.channels} channel{plural} of {_BITS[self.dtype]} values ({self.dtype})"

    @property
    def bytes(self) -> int:
        """Bytes of one pixel."""
        return self.channels * np.dtype(self.dtype).itemsize


RGB = PixelType()


def of(data: ConfigDict) -> PixelType:
    """The pixel type that `config.data` says."""
    return PixelType(data.channels, data.dtype)


def kept(dtype: np.dtype, name: str) -> str:
    """The type in which a file's values are kept: uint8, uint16, or float32 for all others.

    Raises:
      UserError: they are no numbers; `name` is the file.
    """
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return f"uint{8 * dtype.itemsize}"
    if dtype.kind in "iuf" and dtype.itemsize <= 8:  # of 32 bits, float32 rounds the largest
        return "float32"
    raise UserError(f"{name}: has values of type {dtype}; save them as uint8, uint16 or float32.")


def check(found: PixelType, name: str, wanted: PixelType) -> None:
    """Compares the type of an image with the configuration; `name` is its file.

    Raises:
      UserError: it has another number of channels, or values of another type.
    """
    if found.channels != wanted.channels:
        raise UserError(
            f"{name}: has {found.channels} channels, the configuration {wanted.channels} "
            f"(data.channels); {_remedy('channels')}."
        )
    if found.dtype != wanted.dtype:
        raise UserError(
            f"{name}: has {_BITS[found.dtype]} values ({found.dtype}), the configuration "
            f"{wanted.dtype} (data.dtype); {_remedy('type')}."
        )


def _remedy(what: str) -> str:
    return (
        f"give images of that {what}, or train a model for these: `fastfcn doctor --folder` "
        "writes the configuration"
    )
