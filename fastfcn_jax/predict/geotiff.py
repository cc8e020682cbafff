"""Reads windows of a GeoTIFF and writes label maps with its georeference (extra `geo`)."""

import functools
import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line, replacing

SUFFIXES = (".tif", ".tiff")
NODATA = 255
_BLOCK = 512
# Tags of a TIFF: pixel scale, tie points, transformation, keys of the reference system.
_GEO_TAGS = {33550, 33922, 34264, 34735}
# Order, version, and the forms of the first offset, the number of entries, and an entry's length.
_FORMS = {
    b"II*\0": ("<I", 4, "<H", 12),
    b"MM\0*": (">I", 4, ">H", 12),
    b"II+\0": ("<Q", 8, "<Q", 20),
    b"MM\0+": (">Q", 8, ">Q", 20),
}


@functools.lru_cache(maxsize=256)
def has_georeference(path: Path) -> bool:
    """Whether a file is a TIFF with tags of a georeference; False if it cannot be read."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return not _GEO_TAGS.isdisjoint(_tags(data))
    except (OSError, ValueError, struct.error):
        return False


def _tags(data: mmap.mmap) -> Iterator[int]:
    """The tags of the first directory of a TIFF or BigTIFF."""
    if data[:4] not in _FORMS:
        return
    offset, place, number, length = _FORMS[data[:4]]
    (start,) = struct.unpack_from(offset, data, place)
    (count,) = struct.unpack_from(number, data, start)
    first = start + struct.calcsize(number)
    for entry in range(first, first + min(count, 4096) * length, length):
        yield struct.unpack_from(f"{offset[0]}H", data, entry)[0]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yields the open rasterio data set.

    Raises:
      UserError: rasterio is missing, or the file is damaged.
    """
    try:
        import rasterio
    except ImportError as error:
        raise UserError(
            f'{path}: keeping its georeference needs rasterio: pip install "fastfcn-jax[geo]" '
            "(--no-georeference treats it as a plain picture)."
        ) from error
    with _reading(path), rasterio.open(path) as source:
        yield source


@contextmanager
def _reading(name: object) -> Iterator[None]:
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        raise UserError(f"{name}: cannot be read ({first_line(error)}); replace it.") from error


class Raster:
    """A georeferenced picture, read window by window like an array: `raster[0:256, 0:512]`."""

    def __init__(self, data: Any, pixel: PixelType):
        self._data = data
        self.shape = data.height, data.width, pixel.channels

    def __getitem__(self, window: tuple[slice, slice]) -> Num[np.ndarray, "h w c"]:
        channels = self.shape[2]
        bands = list(range(1, channels + 1)) if self._data.count >= channels else [1] * channels
        with _reading(self._data.name):  # here, as a file that is being written is open around it
            pixels = self._data.read(bands, window=_window(window, self.shape))
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def is_read_in_windows(data: Any, pixel: PixelType) -> bool:
    """Whether windows hold what decoding the whole file gives: RGB, also of grey, or its bands."""
    from rasterio.enums import ColorInterp

    is_type = set(data.dtypes) == {pixel.dtype}
    if pixel != RGB:
        return is_type and data.count == pixel.channels
    is_picture = data.colorinterp[0] in (ColorInterp.gray, ColorInterp.red)
    return is_type and data.count in (1, 3, 4) and is_picture


class LabelFile:
    """An open GeoTIFF of labels: `file[rows, columns] = class indices`."""

    def __init__(self, target: Any, source: Any, table: np.ndarray, has_nodata: bool):
        self._target, self._source = target, source
        self._table, self._has_nodata = table, has_nodata
        self.shape = source.height, source.width

    def __setitem__(self, window: tuple[slice, slice], labels: UInt8[np.ndarray, "h w"]) -> None:
        place = _window(window, self.shape)
        if self._has_nodata:
            with _reading(self._source.name):
                outside = self._source.dataset_mask(window=place) == 0
            labels = np.where(outside, np.uint8(NODATA), labels)
        stored = self._table[labels]
        bands = stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)
        self._target.write(bands, window=place)


@contextmanager
def label_file(
    path: Path, source: Any, table: UInt8[np.ndarray, "256 *bands"], palette: np.ndarray | None
) -> Iterator[LabelFile]:
    """Creates a GeoTIFF with the reference system, transform and size of `source`.

    Pixels that `source` marks as empty (nodata, or transparent) are NODATA, unless that is one of
    the stored values.

    Args:
      table: what is stored for each class index: numbers (256,) or colours (256, 3).
      palette: colours of the numbers; None: none are written.
    """
    import rasterio
    from rasterio.enums import MaskFlags
    from rasterio.errors import RasterioError

    is_empty_somewhere = any(MaskFlags.all_valid not in flags for flags in source.mask_flag_enums)
    has_nodata = is_empty_somewhere and table.ndim == 1 and NODATA not in table[:NODATA]
    points, reference = source.gcps
    place = {"gcps": points, "crs": reference} if points else {"crs": source.crs}
    profile = {
        **place,
        **({} if points else {"transform": source.transform}),
        **({"nodata": NODATA} if has_nodata else {}),
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1 if table.ndim == 1 else 3,
        "height": source.height,
        "width": source.width,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "bigtiff": "if_safer",
    }
    try:
        with replacing(path) as temporary, rasterio.open(temporary, "w", **profile) as target:
            if palette is not None:
                colours = {k: (*map(int, colour), 255) for k, colour in enumerate(palette)}
                target.write_colormap(1, colours)
            yield LabelFile(target, source, table, has_nodata)
    except RasterioError as error:
        raise UserError(f"{path}: cannot be written ({first_line(error)}).") from error


def to_lonlat(source: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """Maps pixel coordinates (x, y), (n, 2), to longitude and latitude; None without a CRS."""
    if source.crs is None:
        return None
    from rasterio import warp

    def convert(points: np.ndarray) -> np.ndarray:
        (x, y), t = points.T, source.transform
        x, y = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
        return np.stack(warp.transform(source.crs, "EPSG:4326", x, y), axis=1)

    return convert


def _window(window: tuple[slice, slice], shape: tuple[int, ...]):
    from rasterio.windows import Window

    (top, bottom, _), (left, right, _) = (
        part.indices(length) for part, length in zip(window, shape, strict=False)
    )
    return Window(left, top, right - left, bottom - top)  # pyright: ignore[reportCallIssue]
