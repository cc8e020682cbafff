"""TIFF files of up to 16 channels, read by tifffile.

OpenCV refuses more than four bands, and bands that are stored one after another.
"""

import io
import logging
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Num, Shaped

from fastfcn_jax.data import exif, pixel_type
from fastfcn_jax.data.decode import check_size, in_rgb_order
from fastfcn_jax.data.pixel_type import MAX_CHANNELS, PixelType
from fastfcn_jax.errors import UserError

SIGNATURES = (*exif.TIFF, b"II+\0", b"MM\0+")  # the last two: BigTIFF
# Deflate, the densest compression in common use, reaches 1032:1.
_MAX_EXPANSION = 1032

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else it writes to the terminal


class _Layout(NamedTuple):
    """How a TIFF is stored: its axes without those of length 1, and the image's (h, w, c)."""

    axes: tuple[int, ...]
    shape: tuple[int, int, int]
    channels_first: bool


def stored_type(data: bytes, name: str) -> PixelType:
    """Channels and type of the values; UserError for a damaged file."""
    with _opened(data, name) as file:
        return PixelType(_layout(file, name).shape[2], pixel_type.kept(file.series[0].dtype, name))


def size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) after turning by the orientation; UserError for a damaged file."""
    with _opened(data, name) as file:
        height, width, _ = _layout(file, name).shape
    return (width, height) if exif.orientation(data) >= 5 else (height, width)


def decode(data: bytes, name: str) -> Num[np.ndarray, "h w c"]:
    """All channels, uint8, uint16 or float32, turned upright by the orientation.

    Raises:
      UserError: the file is damaged, no single image, or has more than 16 channels.
    """
    pixels = _upright(data, name)
    return np.ascontiguousarray(pixels, pixel_type.kept(pixels.dtype, name))


def _upright(data: bytes, name: str) -> Shaped[np.ndarray, "h w c"]:
    with _opened(data, name) as file:
        layout = _layout(file, name)
        _check_length(file, layout, len(data), name)
        try:
            pixels = file.series[0].asarray(maxworkers=1)
        except Exception as error:  # kinds of its own, and of every decompressor
            read = _by_opencv(data, layout)
            if read is None:
                raise _undecodable(name, error) from error
            return read
    pixels = pixels.reshape(layout.axes)
    if layout.channels_first:
        pixels = np.moveaxis(pixels, 0, 2)
    return exif.turn(pixels.reshape(layout.shape), exif.orientation(data))


def _opened(data: bytes, name: str):
    """The file as tifffile sees it; its first series has at least one page.

    Raises:
      UserError: it has no image.
    """
    import tifffile  # takes 0.1 s

    try:
        file = tifffile.TiffFile(io.BytesIO(data))
        if file.series:
            return file
    except Exception as error:  # of many kinds, for damaged files
        raise UserError(f"{name}: damaged ({_shown(error)}); replace the file.") from error
    raise UserError(f"{name}: a TIFF without an image; replace the file.")


def _layout(file, name: str) -> _Layout:
    """Samples or pages are channels; so is the last axis of an array written without saying so.

    Raises:
      UserError: it is a stack of several images, or has more than 16 channels.
    """
    series = file.series[0]
    kept = [(n, a) for n, a in zip(series.shape, series.axes, strict=True) if n > 1 or a in "YXS"]
    lengths, axes = tuple(n for n, _ in kept), "".join(a for _, a in kept)
    if axes == "YX":
        return _Layout(lengths, (*lengths, 1), False)
    if len(lengths) == 3 and axes.endswith("YX") and lengths[0] <= MAX_CHANNELS:
        return _Layout(lengths, (*lengths[1:], lengths[0]), True)
    if len(lengths) == 3 and lengths[2] <= MAX_CHANNELS:
        return _Layout(lengths, lengths, False)
    raise UserError(
        f"{name}: holds an array {series.shape}, not an image of up to {MAX_CHANNELS} channels; "
        "save each image as a file of its own."
    )


def _check_length(file, layout: _Layout, length: int, name: str) -> None:
    """Raises UserError for a file that is cut off, or that claims more than it can hold."""
    height, width, channels = layout.shape
    check_size(height, width, name)
    series = file.series[0]
    if height * width * channels * series.dtype.itemsize > _MAX_EXPANSION * length:
        raise UserError(
            f"{name}: says that it has {width}x{height} pixels, which do not fit into its "
            f"{length} bytes; replace the file."
        )
    for page in (page for page in series.pages if page is not None):
        parts = zip(page.dataoffsets, page.databytecounts, strict=True)
        if any(start + count > length for start, count in parts):
            raise UserError(f"{name}: cut off before its end (truncated); copy the file again.")


def _by_opencv(data: bytes, layout: _Layout) -> np.ndarray | None:
    """Pixels that OpenCV's libtiff decompresses and tifffile alone does not, such as LZW.

    OpenCV turns them upright itself.
    """
    if layout.shape[2] > 4 or layout.channels_first:
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.size != math.prod(layout.shape):
        return None
    return in_rgb_order(pixels)


def _undecodable(name: str, error: Exception) -> UserError:
    if "imagecodecs" in str(error):
        return UserError(
            f"{name}: its compression needs a package: pip install 'fastfcn-jax[tiff]'."
        )
    return UserError(f"{name}: damaged ({_shown(error)}); copy the file again, or replace it.")


def _shown(error: Exception) -> str:
    """The error's first line, short and without control characters."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
    return (line if line.isprintable() else ascii(line)[1:-1]).rstrip(".")
