"""Bytes of a picture file to pixels, or a sentence that says what is wrong with the file."""

import io
import struct

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fastfcn_jax.data import png_decoder
from fastfcn_jax.errors import UserError

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_EXIF_ORIENTATION = 0x0112
_MAX_PIXELS = 1 << 30  # OpenCV decodes no more, unless its environment variable says so
# PIL reads headers and palettes here; it would refuse pictures that OpenCV still decodes.
Image.MAX_IMAGE_PIXELS = None


def image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a photograph, turned upright by its EXIF orientation as mmseg does.

    Raises:
      UserError: the file is empty, cut off, damaged or no picture.
    """
    _check_whole(data, name)
    pixels = png_decoder.decode(data)
    if pixels is None or pixels.ndim == 2:
        return _decode(data, name, cv2.IMREAD_COLOR_RGB)
    return pixels


def size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of what `image` returns, from the file's header alone.

    Raises:
      UserError: no header of a picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            turned = _is_turned(picture, data)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name}: damaged, or not a picture; replace the file.") from error
    return (width, height) if turned else (height, width)


def is_turned(data: bytes) -> bool:
    """Whether `image` swaps the stored height and width, by an EXIF tag that can be read."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return _is_turned(picture, data)
    except (OSError, SyntaxError, ValueError):
        return False


def label(data: bytes, name: str) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The stored values of a label picture: index (2-D) or RGB colour (3-D).

    A palette PNG gives its indices, as Pascal VOC's labels need; OpenCV would give colours.

    Raises:
      UserError: the file is empty, cut off, damaged, no picture or deeper than 8 bits.
    """
    _check_whole(data, name)
    depth, is_palette = _png_format(data)
    if depth == 16:
        raise UserError(f"{name}: a 16-bit label; store one class number a pixel in 8 bits.")
    if is_palette:
        return _palette_indices(data, name)
    if depth not in (None, 8):
        raise UserError(f"{name}: a {depth}-bit grey label; store class numbers in 8 bits.")
    pixels = png_decoder.decode(data)
    if pixels is not None:
        return pixels
    pixels = _decode(data, name, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint8:
        raise UserError(f"{name}: a {pixels.dtype} label; store class numbers in 8 bits.")
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 2::-1])


def _is_turned(picture: Image.Image, data: bytes) -> bool:
    # PIL decodes a whole PNG to look for EXIF behind the pixels.
    may_turn = not data.startswith(_PNG) or b"eXIf" in data
    return may_turn and picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5


def _decode(data: bytes, name: str, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is not None:
        return pixels
    height, width = size(data, name)
    if height * width > _MAX_PIXELS:
        raise UserError(
            f"{name}: {width}x{height} pixels, more than OpenCV decodes; set "
            f"OPENCV_IO_MAX_IMAGE_PIXELS={height * width} in the environment, or cut it into parts."
        )
    raise UserError(f"{name}: damaged, or not a picture; replace the file.")


def _check_whole(data: bytes, name: str) -> None:
    """Decoders of some versions fill what is missing with grey, so look for the end marker."""
    if not data:
        raise UserError(f"{name}: an empty file; replace it.")
    cut_png = data.startswith(_PNG) and _PNG_END not in data[-4096:]
    cut_jpeg = data.startswith(JPEG) and data.rfind(_JPEG_END) < 0
    if cut_png or cut_jpeg:
        raise UserError(f"{name}: cut off before its end (truncated); copy the file again.")


def _png_format(data: bytes) -> tuple[int | None, bool]:
    """(bits a sample, has a palette) of a PNG; (None, False) of another format."""
    if not data.startswith(_PNG) or len(data) < 26:
        return None, False
    depth, colour_type = struct.unpack_from("BB", data, 24)
    return depth, colour_type == 3


def _palette_indices(data: bytes, name: str) -> UInt8[np.ndarray, "h w"]:
    try:
        return np.array(Image.open(io.BytesIO(data)), np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name}: damaged, or not a picture; replace the file.") from error
