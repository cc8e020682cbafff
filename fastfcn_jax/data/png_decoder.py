"""PNG files: their structure and checksums, and 8-bit pixels in about 60 % of OpenCV's time."""

import struct
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data import memory_decoder
from fastfcn_jax.errors import UserError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3  # colour types
_CHANNELS = {GREY: 1, RGB: 3}  # of the colour types that are decoded here
# Chunks that change the pixels OpenCV returns: orientation, transparency, animation.
_LEFT_TO_OPENCV = {b"eXIf", b"tRNS", b"acTL"}
_MAX_PIXELS = 1 << 26


class Header(NamedTuple):
    """The IHDR chunk; `depth` is the number of bits per sample."""

    width: int
    height: int
    depth: int
    colour_type: int


class Chunk(NamedTuple):
    """A chunk; its content is at start:end in the file."""

    kind: bytes
    start: int
    end: int


def header(data: bytes) -> Header | None:
    """The IHDR chunk; None if the file is not a PNG or ends before its size."""
    if not data.startswith(SIGNATURE) or len(data) < 33 or data[12:16] != b"IHDR":
        return None
    found = Header(*struct.unpack_from(">IIBB", data, 16))
    return found if found.width and found.height else None


def chunks(data: bytes) -> tuple[list[Chunk], bool]:
    """The chunks of a PNG and whether its end was reached; anything after the end is ignored."""
    found, place = [], len(SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        found.append(Chunk(kind, place + 8, end))
        if kind == b"IEND":
            return found, True
        place = end + 4
    return found, False


def check(data: bytes, name: str) -> None:
    """Verifies the checksum of every chunk; decoders verify only some.

    Raises:
      UserError: a checksum does not match, or the file is truncated.
    """
    found, whole = chunks(data)
    for kind, start, end in found:
        if zlib.crc32(data[start - 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UserError(
                f"{name}: damaged, the checksum of its {kind.decode('latin-1')!a} chunk does not "
                "fit; copy the file again, or replace it."
            )
    if not whole:
        raise UserError(f"{name}: cut off before its end (truncated); copy the file again.")
    if header(data) is None:
        raise UserError(f"{name}: damaged, it does not begin with a size; replace the file.")


def decode(data: bytes) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"] | None:
    """OpenCV's pixels in RGB order; None for other kinds of file and for damaged ones."""
    found = header(data)
    if found is None or found.depth != 8:
        return None
    channels = _CHANNELS.get(found.colour_type)
    if channels is None or found.width * found.height > _MAX_PIXELS:
        return None
    if not _LEFT_TO_OPENCV.isdisjoint(chunk.kind for chunk in chunks(data)[0]):
        return None
    try:
        pixels = memory_decoder.decode("png", data)
    except ValueError:
        return None
    if pixels.shape != (found.height, found.width, channels):
        return None
    return pixels if channels == 3 else pixels[..., 0]


def palette_indices(data: bytes) -> UInt8[np.ndarray, "h w"] | None:
    """Palette indices of an 8-bit file that passed `check`, decoded as if they were grey.

    None for other kinds of file, and if the compressed data does not decode.
    """
    found = header(data)
    if found is None or found.depth != 8 or found.colour_type != PALETTE:
        return None
    grey = bytearray(data[16:29])
    grey[9] = GREY
    pixels = [data[c.start - 8 : c.end + 4] for c in chunks(data)[0] if c.kind == b"IDAT"]
    return decode(
        b"".join([SIGNATURE, _chunk(b"IHDR", bytes(grey)), *pixels, _chunk(b"IEND", b"")])
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum
