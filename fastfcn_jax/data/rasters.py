"""Decodes images of any number of channels and bits: PNG, TIFF, .npy and what OpenCV reads.

`decode` remains the way to 8-bit RGB.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Num, Shaped

from fastfcn_jax.data import (
    decode,
    exif,
    faults,
    jpeg_decoder,
    npy_decoder,
    pixel_type,
    png_decoder,
    tiff_decoder,
)
from fastfcn_jax.data.pixel_type import RGB, PixelType

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # of each colour type; 4 and 6 end with transparency


class Stored(NamedTuple):
    """Pixel type of a file as stored, and whether its last channel is transparency."""

    pixel: PixelType
    has_alpha: bool = False


def image(data: bytes, name: str, wanted: PixelType = RGB) -> Num[np.ndarray, "h w c"]:
    """The pixels of an image, turned upright by its EXIF orientation.

    For 8-bit RGB as `decode.image`: grey is repeated, transparency and further bits are dropped.
    For any other type nothing is converted: the file must have it.

    Raises:
      UserError: the file is damaged, not an image, or of another type.
    """
    if wanted == RGB and not data.startswith(npy_decoder.SIGNATURE):
        _refuse_other_tiff(data, name)
        return decode.image(data, name)
    pixels = as_stored(data, name)
    pixel_type.check(PixelType(pixels.shape[2], pixels.dtype.name), name, wanted)
    return pixels


def size(data: bytes, name: str, wanted: PixelType = RGB) -> tuple[int, int]:
    """(height, width) of what `image` returns, mostly from the file's header alone.

    Raises:
      UserError: the file is not an image.
    """
    if data.startswith(npy_decoder.SIGNATURE):
        return npy_decoder.header(data, name)[0][:2]
    if data[:4] in tiff_decoder.SIGNATURES and wanted != RGB:
        return tiff_decoder.size(data, name)
    return decode.size(data, name)


def stored_type(data: bytes, name: str) -> Stored:
    """The pixel type of a file, from its header; 8-bit RGB for formats that hold little else.

    Raises:
      UserError: the header is damaged.
    """
    if data.startswith(npy_decoder.SIGNATURE):
        shape, dtype = npy_decoder.header(data, name)[:2]
        return Stored(PixelType(shape[2], pixel_type.kept(dtype, name)))
    if png := png_decoder.header(data):
        dtype = "uint16" if png.depth == 16 else "uint8"
        return Stored(PixelType(_PNG_CHANNELS.get(png.colour_type, 3), dtype), png.colour_type >= 4)
    if data.startswith(decode.JPEG):
        return Stored(PixelType(1 if jpeg_decoder.components(data) == 1 else 3))
    if data[:4] in tiff_decoder.SIGNATURES:
        return Stored(tiff_decoder.stored_type(data, name))
    return Stored(RGB)


def as_stored(data: bytes, name: str) -> Num[np.ndarray, "h w c"]:
    """All channels of an image, uint8, uint16 or float32; colours in the order red, green, blue.

    Raises:
      UserError: the file is damaged, not an image, or has more than 16 channels.
    """
    if data.startswith(npy_decoder.SIGNATURE):
        return npy_decoder.decode(data, name)
    if data[:4] in tiff_decoder.SIGNATURES:
        return tiff_decoder.decode(data, name)
    decode.check(data, name)
    strict = jpeg_decoder.decode(data, name) if data.startswith(decode.JPEG) else None
    pixels = png_decoder.decode(data) if strict is None else strict
    pixels = _by_opencv(data, name) if pixels is None else pixels
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return exif.turn(pixels.astype(pixel_type.kept(pixels.dtype, name)), exif.orientation(data))


def _refuse_other_tiff(data: bytes, name: str) -> None:
    """Raises UserError for a TIFF of more than four bands, or of floating-point numbers."""
    bands, is_float = faults.tiff_kind(data)
    if bands > 4 or is_float:
        found = PixelType(bands, "float32" if is_float else "uint8")
        pixel_type.check(found, name, RGB)


def _by_opencv(data: bytes, name: str) -> Shaped[np.ndarray, "h w c"]:
    """What is stored, as OpenCV reads it; a palette gives its colours."""
    if data.startswith(decode.GIF):
        return decode.image(data, name)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = decode.in_rgb_order(decode.by_opencv(data, name, flags))
    png = png_decoder.header(data)
    if png is None:
        return pixels
    if png.colour_type == 4:  # OpenCV repeats the grey of grey with transparency
        return pixels[..., [0, -1]]
    return pixels[..., : _PNG_CHANNELS[png.colour_type]]  # a colour declared transparent adds one
