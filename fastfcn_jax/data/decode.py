"""Decodes the bytes of an image or label file, or says in a sentence what is wrong with them."""

import io
import os

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from fastfcn_jax.data import exif, faults, jpeg_decoder, png_decoder
from fastfcn_jax.errors import UserError

JPEG = jpeg_decoder.SIGNATURE
GIF = (b"GIF87a", b"GIF89a")
# OpenCV refuses larger images unless this variable allows them; PIL and TensorStore would not.
_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"
_MAX_PIXELS = 1 << 30
# In a PNG, one byte expands to at most 1032 bytes of 8 pixels each; JPEG and GIF reach less.
_MAX_PIXELS_PER_BYTE = 1032 * 8
# What PIL, which reads headers and GIFs here, raises for damaged files.
_PIL_ERRORS = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError)
# PIL's own limit would refuse images that OpenCV decodes.
Image.MAX_IMAGE_PIXELS = None


def image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of an image, turned upright by its EXIF orientation as in mmsegmentation.

    A GIF gives its first frame.

    Raises:
      UserError: the file is empty, truncated, damaged, too large or not an image.
    """
    check(data, name)
    if data.startswith(GIF):
        return _first_of_gif(data, name, "RGB")
    pixels = _decode_strictly(data, name)
    if pixels is None:
        as_stored = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = by_opencv(data, name, as_stored)
    pixels = jpeg_decoder.as_rgb(pixels)
    if data[:4] in exif.TIFF:  # OpenCV turns a TIFF even if told not to
        return pixels
    return exif.turn(pixels, exif.orientation(data))


def size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of what `image` returns, mostly from the file's header alone.

    Raises:
      UserError: the file is not an image.
    """
    found = _stored_size(data)
    if found is None:  # PIL is stricter than OpenCV about some headers
        return image(data, name).shape[:2]
    height, width = found
    if data[:4] in exif.TIFF:  # its size is the one after turning
        return height, width
    return (width, height) if exif.orientation(data) >= 5 else (height, width)


def is_turned(data: bytes) -> bool:
    """Whether `image` swaps the stored height and width because of the EXIF orientation."""
    return exif.orientation(data) >= 5


def label(data: bytes, name: str) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The stored values of a label file: class indices (2-D) or RGB colours (3-D).

    A palette PNG or GIF gives its indices, as Pascal VOC needs; OpenCV would return colours.

    Raises:
      UserError: the file is empty, truncated, damaged, too large, not an image or not 8-bit.
    """
    check(data, name)
    if data.startswith(GIF):
        return _first_of_gif(data, name, "")
    png = png_decoder.header(data)
    if png is not None and png.depth == 16:
        raise UserError(f"{name}: a 16-bit label; store one class number per pixel in 8 bits.")
    if png is not None and png.colour_type == png_decoder.PALETTE:
        return _palette_indices(data, name)
    if png is not None and png.depth != 8:
        raise UserError(f"{name}: a {png.depth}-bit grey label; store class numbers in 8 bits.")
    pixels = _decode_strictly(data, name)
    if pixels is not None:
        return pixels
    pixels = by_opencv(data, name, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint8:
        raise UserError(f"{name}: a {pixels.dtype} label; store class numbers in 8 bits.")
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise UserError(f"{name}: a label of {pixels.shape[2]} channels; store class numbers.")
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 2::-1])


def check(data: bytes, name: str) -> None:
    """Raises UserError for all that is wrong before memory is allocated for the pixels."""
    if not data:
        raise UserError(f"{name}: an empty file; replace it.")
    if data.startswith(png_decoder.SIGNATURE):
        png_decoder.check(data, name)
    elif not data.startswith((JPEG, *GIF)):
        return  # OpenCV checks the size itself
    found = _stored_size(data)
    if found is None:
        raise _refused(data, name)
    height, width = found
    check_size(height, width, name)
    if height * width > _MAX_PIXELS_PER_BYTE * len(data):
        raise UserError(
            f"{name}: says that it has {width}x{height} pixels, which do not fit into its "
            f"{len(data)} bytes; replace the file."
        )


def check_size(height: int, width: int, name: str) -> None:
    """Raises UserError for more pixels than OpenCV decodes."""
    wanted = os.environ.get(_LIMIT, "")
    if height * width > (int(wanted) if wanted.isdigit() else _MAX_PIXELS):
        raise UserError(
            f"{name}: {width}x{height} pixels, more than OpenCV decodes; set "
            f"{_LIMIT}={height * width} in the environment, or cut it into parts."
        )


def _stored_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) before turning by EXIF (of a TIFF: after it); None without a header."""
    if png := png_decoder.header(data):
        return png.height, png.width
    if jpeg := jpeg_decoder.size(data):
        return jpeg
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except _PIL_ERRORS:
        return exif.tiff_size(data)  # PIL does not know 16-bit RGB, for example
    return height, width


def _decode_strictly(data: bytes, name: str) -> np.ndarray | None:
    """Grey or RGB pixels from a decoder that refuses gaps; None if only OpenCV reads the format."""
    if data.startswith(JPEG):
        return jpeg_decoder.decode(data, name)
    return png_decoder.decode(data)


def by_opencv(data: bytes, name: str, flags: int) -> np.ndarray:
    """OpenCV's pixels, its channels in the order that `flags` say; UserError if it has none."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is not None:
        return pixels
    if found := _stored_size(data):
        check_size(*found, name)
    raise _refused(data, name)


def in_rgb_order(pixels: Shaped[np.ndarray, "h w *c"]) -> Shaped[np.ndarray, "h w _"]:
    """OpenCV's pixels with their first three channels, if there are as many, turned around."""
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] < 3:
        return pixels
    return np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)


def _refused(data: bytes, name: str) -> UserError:
    what = faults.reason(data)
    if what:
        return UserError(f"{name}: {what}, which is not supported; save it as 8-bit PNG or JPEG.")
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
    """The first frame of a GIF in a PIL `mode`; "" for its palette indices."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.array(picture.convert(mode) if mode else picture, np.uint8)
    except _PIL_ERRORS as error:
        raise _refused(data, name) from error
