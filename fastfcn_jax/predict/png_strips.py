"""Writes a picture as PNG strip by strip, so that it never has to be in memory as a whole."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.files import replacing

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _GREY, _RGB, _PALETTE = 8, 0, 2, 3  # bits of a sample; kinds of picture
_NONE, _SUB = 0, 1  # filters: bytes as they are, or minus the byte three before


def write(
    path: Path,
    size: tuple[int, int],
    strips: Iterable[UInt8[np.ndarray, "_ w *rgb"]],
    *,
    is_color: bool = True,
    palette: UInt8[np.ndarray, "k 3"] | None = None,
) -> None:
    """Writes a PNG of (height, width) `size` from strips of rows, completely or not at all.

    Args:
      is_color: strips are RGB, (rows, w, 3); False: grey values or class numbers, (rows, w).
      palette: colours of the class numbers; None: they are grey values.
    """
    height, width = size
    kind = _RGB if is_color else _GREY if palette is None else _PALETTE
    pack = zlib.compressobj(1, strategy=zlib.Z_RLE if is_color else zlib.Z_DEFAULT_STRATEGY)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_SIGNATURE)
        header = struct.pack(">IIBBBBB", width, height, _DEPTH, kind, 0, 0, 0)
        file.write(_chunk(b"IHDR", header))
        if palette is not None:  # all 256 colours: an index without one is an error in a PNG
            colours = np.zeros((256, 3), np.uint8)
            colours[: len(palette)] = palette
            file.write(_chunk(b"PLTE", colours.tobytes()))
        for strip in strips:
            file.write(_chunk(b"IDAT", pack.compress(_filtered(strip))))
        file.write(_chunk(b"IDAT", pack.flush()))
        file.write(_chunk(b"IEND", b""))


def _filtered(strip: UInt8[np.ndarray, "h w *rgb"]) -> bytes:
    """Each row behind the number of its filter."""
    lines = strip.reshape(len(strip), -1)
    filtered = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
    if strip.ndim == 2:
        filtered[:, 0] = _NONE
        filtered[:, 1:] = lines
    else:
        filtered[:, 0] = _SUB
        filtered[:, 1:4] = lines[:, :3]
        filtered[:, 4:] = lines[:, 3:] - lines[:, :-3]
    return filtered.tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum
