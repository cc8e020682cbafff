"""EXIF orientation of an image file, read as OpenCV reads it."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from fastfcn_jax.data import jpeg_decoder, png_decoder

TIFF = (b"II*\0", b"MM\0*")
ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_SHORT, _LONG = 3, 4  # value types
_APP1 = 0xE1
_PREFIX = b"Exif\0\0"


class Entry(NamedTuple):
    """One tag of a TIFF directory: value type, number of values, and the values or their offset."""

    tag: int
    kind: int
    count: int
    value: bytes


def orientation(data: bytes) -> int:
    """EXIF orientation of a JPEG, PNG, WebP or TIFF file: 1 (upright, or no valid tag) to 8.

    Only the first two bytes count, whatever the tag's type, as in OpenCV and thus mmsegmentation.
    """
    block = _block(data)
    order = "little" if block.startswith(b"II") else "big"
    for entry in entries(block):
        if entry.tag == ORIENTATION:
            value = int.from_bytes(entry.value[:2], order)
            return value if 1 <= value <= 8 else 1
    return 1


def turn(pixels: Shaped[np.ndarray, "h w c"], value: int) -> Shaped[np.ndarray, "h2 w2 c"]:
    """Turns pixels upright; `value` is an EXIF orientation, 1 to 8."""
    if value >= 5:
        pixels = pixels.swapaxes(0, 1)
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def tiff_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a TIFF after turning by its orientation; None if it gives no size."""
    order = "little" if data.startswith(b"II") else "big"
    found = {e.tag: e for e in entries(data) if e.kind in (_SHORT, _LONG)}
    if _WIDTH not in found or _HEIGHT not in found:
        return None
    height, width = (
        int.from_bytes(e.value[: 2 if e.kind == _SHORT else 4], order)
        for e in (found[_HEIGHT], found[_WIDTH])
    )
    return (width, height) if orientation(data) >= 5 else (height, width)


def entries(block: bytes) -> Iterator[Entry]:
    """Entries of the first directory of a TIFF file or EXIF block; none for other data."""
    if block[:4] not in TIFF or len(block) < 8:
        return
    order = "<" if block.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return
    (count,) = struct.unpack_from(f"{order}H", block, start)
    last = min(count, (len(block) - start - 2) // 12)
    for place in range(start + 2, start + 2 + 12 * last, 12):
        yield Entry(*struct.unpack_from(f"{order}HHI4s", block, place))


def _block(data: bytes) -> bytes:
    """The EXIF block of an image file; b"" if it has none."""
    if data.startswith(jpeg_decoder.SIGNATURE):
        return _of_jpeg(data)
    if data.startswith(png_decoder.SIGNATURE):
        return _of_png(data) if b"eXIf" in data else b""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _of_webp(data)
    return data if data[:4] in TIFF else b""


def _of_jpeg(data: bytes) -> bytes:
    for marker, start, end in jpeg_decoder.segments(data):
        if marker == _APP1 and data.startswith(_PREFIX, start):
            return data[start + len(_PREFIX) : end]
    return b""


def _of_png(data: bytes) -> bytes:
    found = (c for c in png_decoder.chunks(data)[0] if c.kind == b"eXIf")
    return next((data[chunk.start : chunk.end] for chunk in found), b"")


def _of_webp(data: bytes) -> bytes:
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"EXIF":
            return data[place + 8 : place + 8 + length].removeprefix(_PREFIX)
        place += 8 + length + length % 2
    return b""
