"""JPEG files by TensorStore: OpenCV's pixels, in its time, but no picture with a hole in it."""

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
# Kinds of file that only OpenCV decodes, and words about a file that do not touch its pixels.
_LEFT_TO_OPENCV = re.compile(
    r"Expected 1 or 3 components|Unsupported|not implemented|unknown (JFIF|Adobe)", re.IGNORECASE
)
_HOLE = bytes(32)  # a sound file may hold such a run, where an even surface takes a bit a block
_CUT = 2  # bytes, more than the bits that fill the last one up


class Segment(NamedTuple):
    """Where the content of a marker segment lies in the file."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """All up to the first scan."""
    place = len(SIGNATURE)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fills space
            place += 1
        elif marker in _NO_CONTENT:
            place += 2
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            yield Segment(marker, place + 4, end)
            if marker == _START_OF_SCAN:
                return
            place = end


def size(data: bytes) -> tuple[int, int] | None:
    """Stored (height, width); None where the file is no JPEG, or cut off before its size."""
    if not data.startswith(SIGNATURE):
        return None
    for marker, start, _ in segments(data):
        if marker in _FRAMES and start + 5 <= len(data):
            height, width = struct.unpack_from(">HH", data, start + 1)
            return (height, width) if height and width else None
    return None


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"] | None:
    """Grey or RGB pixels as stored; None for kinds that are left to OpenCV, such as CMYK.

    Raises:
      UserError: libjpeg had to fill a gap, or the compressed pixels end before the file does.
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
    """Grey pixels three times over; RGB ones as they are."""
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels


def _has_unused_end(data: bytes) -> bool:
    """Whether the file, which has a run of zeros in its pixels, decodes without its last bytes.

    A hole of zeros is read as pixels, and often as more than lay there before: then the picture is
    full before the file ends, of which no decoder complains.
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
