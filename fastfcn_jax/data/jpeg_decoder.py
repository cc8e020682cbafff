"""Decodes JPEG by TensorStore: OpenCV's pixels and speed, but damaged files are refused."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data import memory_decoder
from fastfcn_jax.errors import UserError

SIGNATURE = b"\xff\xd8"
_END = b"\xff\xd9"
_START_OF_SCAN = 0xDA
_NO_CONTENT = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Errors for files that only OpenCV decodes, and warnings that do not concern the pixels.
_LEFT_TO_OPENCV = re.compile(
    r"Expected 1 or 3 components|Unsupported|not implemented|unknown (JFIF|Adobe)", re.IGNORECASE
)
_HOLE = bytes(32)  # intact files may have such a run too: a uniform area takes one bit per block
_CUT = 2  # bytes; more than the padding bits of the last byte


class Segment(NamedTuple):
    """A marker segment; its content is at start:end in the file."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yields all marker segments up to the first scan."""
    place = len(SIGNATURE)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _NO_CONTENT:
            place += 2
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            yield Segment(marker, place + 4, end)
            if marker == _START_OF_SCAN:
                return
            place = end


def components(data: bytes) -> int:
    """Number of channels: 1 for grey, 3 for colours; 0 if the header is damaged."""
    for marker, start, _ in segments(data):
        if marker in _FRAMES and start + 6 <= len(data):
            return data[start + 5]
    return 0


def size(data: bytes) -> tuple[int, int] | None:
    """Stored (height, width); None if the file is not a JPEG or ends before its size."""
    if not data.startswith(SIGNATURE):
        return None
    for marker, start, _ in segments(data):
        if marker in _FRAMES and start + 5 <= len(data):
            height, width = struct.unpack_from(">HH", data, start + 1)
            return (height, width) if height and width else None
    return None


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"] | None:
    """Grey or RGB pixels as stored; None for kinds left to OpenCV, such as CMYK.

    Raises:
      UserError: libjpeg had to fill a gap, or compressed data is left over after the last pixel.
    """
    try:
        pixels = memory_decoder.decode("jpeg", data)
    except ValueError as error:
        found = re.search(r'Error reading "[^"]*": (.*?)(?: \[|$)', str(error), re.DOTALL)
        reason = found[1] if found else str(error)
        if _LEFT_TO_OPENCV.search(reason):
            return None
        if "Premature end of JPEG file" in reason:
            text = f"{name}: cut off before its end (truncated); copy the file again."
        else:
            text = f"{name}: damaged ({reason}); copy the file again, or replace it."
        raise UserError(text) from error
    if _has_unused_end(data):
        raise UserError(
            f"{name}: damaged (a run of zeros, and compressed pixels that are left over); copy the "
            "file again, or replace it."
        )
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    return pixels


def as_rgb(pixels: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Grey pixels as three equal channels; RGB pixels unchanged."""
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels


def _has_unused_end(data: bytes) -> bool:
    """Whether the file has a run of zeros in its pixel data and decodes without its last bytes.

    Zeros decode as pixels, often as more of them than the data they replaced: the image is then
    complete before the file ends, and no decoder complains.
    """
    scan = next((s.end for s in segments(data) if s.marker == _START_OF_SCAN), len(data))
    if data.find(_HOLE, scan) < 0:
        return False
    end = data.find(_END, scan)
    try:
        memory_decoder.decode("jpeg", data[: end - _CUT] + _END)
    except ValueError:
        return False
    return True
