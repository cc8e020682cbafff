"""Bytes of a picture file to pixels, or a sentence that says what is wrong with the file."""

import io
import os

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fastfcn_jax.data import exif, faults, jpeg_decoder, png_decoder
from fastfcn_jax.errors import UserError

JPEG = jpeg_decoder.SIGNATURE
_GIF = (b"GIF87a", b"GIF89a")
# OpenCV decodes no more unless this environment variable says so; PIL and TensorStore would.
_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"
_MAX_PIXELS = 1 << 30
# No byte of a PNG stands for more than 1032 bytes of 8 pixels each; JPEG and GIF reach less.
_MAX_PIXELS_PER_BYTE = 1032 * 8
# Errors of PIL, which reads headers and GIFs here, about files that are no good.
_PIL_ERRORS = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError)
# It would refuse pictures that OpenCV still decodes.
Image.MAX_IMAGE_PIXELS = None


def image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a photograph, turned upright by its EXIF orientation as mmseg does.

    Of a GIF it is the first picture.

    Raises:
      UserError: the file is empty, cut off, damaged, too large or no picture.
    """
    _check(data, name)
    if data.startswith(_GIF):
        return _first_of_gif(data, name, "RGB")
    pixels = _decode_strictly(data, name)
    if pixels is None:
        as_stored = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = _decode_by_opencv(data, name, as_stored)
    pixels = jpeg_decoder.as_rgb(pixels)
    if data[:4] in exif.TIFF:  # OpenCV has turned it, whatever it was told
        return pixels
    return exif.turn(pixels, exif.orientation(data))


def size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of what `image` returns, mostly from the file's header alone.

    Raises:
      UserError: no header of a picture.
    """
    found = _stored_size(data)
    if found is None:  # PIL is stricter than OpenCV about some headers
        return image(data, name).shape[:2]
    height, width = found
    if data[:4] in exif.TIFF:  # turned already
        return height, width
    return (width, height) if exif.orientation(data) >= 5 else (height, width)


def is_turned(data: bytes) -> bool:
    """Whether `image` swaps the stored height and width, by an EXIF tag that can be read."""
    return exif.orientation(data) >= 5


def label(data: bytes, name: str) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The stored values of a label picture: index (2-D) or RGB colour (3-D).

    A palette PNG or GIF gives its indices, as Pascal VOC's labels need; OpenCV would give colours.

    Raises:
      UserError: the file is empty, cut off, damaged, too large, no picture or deeper than 8 bits.
    """
    _check(data, name)
    if data.startswith(_GIF):
        return _first_of_gif(data, name, "")
    png = png_decoder.header(data)
    if png is not None and png.depth == 16:
        raise UserError(f"{name}: a 16-bit label; store one class number a pixel in 8 bits.")
    if png is not None and png.colour_type == png_decoder.PALETTE:
        return _palette_indices(data, name)
    if png is not None and png.depth != 8:
        raise UserError(f"{name}: a {png.depth}-bit grey label; store class numbers in 8 bits.")
    pixels = _decode_strictly(data, name)
    if pixels is not None:
        return pixels
    pixels = _decode_by_opencv(data, name, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint8:
        raise UserError(f"{name}: a {pixels.dtype} label; store class numbers in 8 bits.")
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 2::-1])


def _check(data: bytes, name: str) -> None:
    """All that can be said before memory is taken for the pixels."""
    if not data:
        raise UserError(f"{name}: an empty file; replace it.")
    if data.startswith(png_decoder.SIGNATURE):
        png_decoder.check(data, name)
    elif not data.startswith((JPEG, *_GIF)):
        return  # OpenCV looks at the size itself
    found = _stored_size(data)
    if found is None:
        raise _refused(data, name)
    height, width = found
    _check_size(height, width, name)
    if height * width > _MAX_PIXELS_PER_BYTE * len(data):
        raise UserError(
            f"{name}: says that it has {width}x{height} pixels, which do not fit into its "
            f"{len(data)} bytes; replace the file."
        )


def _check_size(height: int, width: int, name: str) -> None:
    wanted = os.environ.get(_LIMIT, "")
    if height * width > (int(wanted) if wanted.isdigit() else _MAX_PIXELS):
        raise UserError(
            f"{name}: {width}x{height} pixels, more than OpenCV decodes; set "
            f"{_LIMIT}={height * width} in the environment, or cut it into parts."
        )


def _stored_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) before any turning, of a TIFF after it; None where no header is found."""
    if png := png_decoder.header(data):
        return png.height, png.width
    if jpeg := jpeg_decoder.size(data):
        return jpeg
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except _PIL_ERRORS:
        return exif.tiff_size(data)  # 16-bit colours, for one, are not known to PIL
    return height, width


def _decode_strictly(data: bytes, name: str) -> np.ndarray | None:
    """Grey or RGB pixels by a decoder that fills no gap; None where only OpenCV knows the kind."""
    if data.startswith(JPEG):
        return jpeg_decoder.decode(data, name)
    return png_decoder.decode(data)


def _decode_by_opencv(data: bytes, name: str, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is not None:
        return pixels
    if found := _stored_size(data):
        _check_size(*found, name)
    raise _refused(data, name)


def _refused(data: bytes, name: str) -> UserError:
    what = faults.reason(data)
    if what:
        return UserError(f"{name}: {what}, which is not read; save it as 8-bit PNG or JPEG.")
    return UserError(f"{name}: damaged, or not a picture; replace the file.")


def _palette_indices(data: bytes, name: str) -> UInt8[np.ndarray, "h w"]:
    indices = png_decoder.palette_indices(data)
    if indices is not None:
        return indices
    try:
        return np.array(Image.open(io.BytesIO(data)), np.uint8)
    except _PIL_ERRORS as error:
        raise _refused(data, name) from error


def _first_of_gif(data: bytes, name: str, mode: str) -> np.ndarray:
    """The first picture of a GIF; `mode` "": its indices."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.array(picture.convert(mode) if mode else picture, np.uint8)
    except _PIL_ERRORS as error:
        raise _refused(data, name) from error
