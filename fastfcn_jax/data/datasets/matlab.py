"""Label maps in MATLAB files, as the `read` of an `EncodedSource`."""

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data.source import Encoded, read_file
from fastfcn_jax.errors import UserError

# What SciPy raises for files that are damaged or of another kind.
_ERRORS = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
    *(NotImplementedError, EOFError, OSError, zlib.error, struct.error),
)


@dataclass(frozen=True)
class MatFiles:
    """Photographs with label maps in .mat files.

    variable: the label map's name; `structure.field` for a field of a structure.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    variable: str

    def __call__(self, index: int) -> Encoded:
        image, label = self.images[index], self.labels[index]
        stored = label_map(read_file(label), self.variable, label)
        png = cv2.imencode(".png", stored)[1].tobytes()
        return Encoded(read_file(image), png, image, label)

    def files(self) -> tuple[str, ...]:
        """All files that it reads."""
        return self.images + self.labels


def label_map(data: bytes, variable: str, name: str) -> UInt8[np.ndarray, "h w"]:
    """A variable of a .mat file as 8-bit label values.

    Raises:
      UserError: the file is damaged, has no such variable, or values that are not 0 to 255.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    outer, *fields = variable.split(".")
    try:
        value = loadmat(io.BytesIO(data), struct_as_record=False, variable_names=[outer])[outer]
        for field in fields:
            value = getattr(value.item(), field)
    except (*_ERRORS, MatReadError) as error:
        raise UserError(
            f"{name}: not a MATLAB file with the label map '{variable}'; download it again."
        ) from error
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "uif" and value.ndim == 2
    if not numeric or value.size == 0 or (value != value.astype(np.uint8)).any():
        raise UserError(
            f"{name}: '{variable}' is not a map of whole numbers from 0 to 255; download it again."
        )
    return value.astype(np.uint8)
