"""Writes an RGB image strip by strip, so that it never has to be in memory as a whole."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.files import replacing

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _RGB = 8, 2
_SUB = 1  # each byte minus the byte three before it


def write(path: Path, size: tuple[int, int], strips: Iterable[UInt8[np.ndarray, "_ w 3"]]) -> None:
    """Writes a PNG of (height, width) `size` from strips of rows, completely or not at all."""
    height, width = size
    pack = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_SIGNATURE)
        header = struct.pack(">IIBBBBB", width, height, _DEPTH, _RGB, 0, 0, 0)
        file.write(_chunk(b"IHDR", header))
        for strip in strips:
            file.write(_chunk(b"IDAT", pack.compress(_filtered(strip))))
        file.write(_chunk(b"IDAT", pack.flush()))
        file.write(_chunk(b"IEND", b""))


def _filtered(strip: UInt8[np.ndarray, "h w 3"]) -> bytes:
    lines = strip.reshape(len(strip), -1)
    filtered = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = _SUB
    filtered[:, 1:4] = lines[:, :3]
    filtered[:, 4:] = lines[:, 3:] - lines[:, :-3]
    return filtered.tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum
