"""Images in NumPy's format .npy: (height, width, channels) or (height, width)."""

import io
import math

import numpy as np
from jaxtyping import Num

from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.pixel_type import MAX_CHANNELS
from fastfcn_jax.errors import UserError

SIGNATURE = b"\x93NUMPY"


def header(data: bytes, name: str) -> tuple[tuple[int, int, int], np.dtype, bool, int]:
    """Shape (h, w, c), type, whether in Fortran's order, and where the values begin.

    Raises:
      UserError: it is not an image.
    """
    stream = io.BytesIO(data)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, in_columns, dtype = readers[np.lib.format.read_magic(stream)](stream)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise UserError(f"{name}: damaged, its header is not NumPy's; write it again.") from error
    whole = (*shape, 1) if len(shape) == 2 else shape
    if len(whole) != 3 or not all(n > 0 for n in whole):
        raise UserError(f"{name}: an array {shape}, not an image (height, width, channels).")
    if whole[2] > MAX_CHANNELS:
        turned = "; the channels come last" if whole[0] <= MAX_CHANNELS else ""
        raise UserError(
            f"{name}: an array {shape} has {whole[2]} channels, more than {MAX_CHANNELS}{turned}; "
            "save it as (height, width, channels)."
        )
    pixel_type.kept(dtype, name)
    if math.prod(whole) * dtype.itemsize != len(data) - stream.tell():
        raise UserError(f"{name}: not as long as its header says (truncated); write it again.")
    return whole, dtype, in_columns, stream.tell()


def decode(data: bytes, name: str) -> Num[np.ndarray, "h w c"]:
    """The values, uint8, uint16 or float32; pickled objects are never loaded.

    Raises:
      UserError: as `header`.
    """
    shape, dtype, in_columns, start = header(data, name)
    values = np.frombuffer(data, dtype, offset=start)
    pixels = values.reshape(shape, order="F" if in_columns else "C")
    return np.ascontiguousarray(pixels, pixel_type.kept(dtype, name))
