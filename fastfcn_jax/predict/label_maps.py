"""Label maps as files: class numbers with a palette, or the values that a data set stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data import decode
from fastfcn_jax.data.datasets.folder import ColorTable
from fastfcn_jax.data.source import DatasetInfo, LabelTable, read_file
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import geotiff, png_strips

STRIP_ROWS = 256  # rows that are converted and written at a time


class LabelMaps:
    """Writes and reads label maps.

    Args:
      values: "classes": the files hold class numbers; "stored": `info.values`.

    Raises:
      UserError: "stored", and the model does not know the values.
    """

    def __init__(self, info: DatasetInfo, values: str):
        self._info = info
        self._is_stored = values == "stored"
        if self._is_stored and info.values is None:
            raise UserError(
                "--values stored: the model does not say with which values its labels are stored; "
                'add them to "dataset" in its model.json, one for each class: "values": [0, 255].'
            )
        self.table = self._table()

    def _table(self) -> UInt8[np.ndarray, "256 *rgb"]:
        """What is stored for each class number."""
        table = np.arange(256, dtype=np.uint8)
        if self._is_stored:
            assert self._info.values is not None
            values = np.array(self._info.values, np.uint8)
            table = np.zeros((256, *values.shape[1:]), np.uint8)
            table[: len(values)], table[255] = values, 255
        return table

    @property
    def palette(self) -> np.ndarray | None:
        """Colours of what is stored; None for stored values, which are grey or colours."""
        return None if self._is_stored else self._info.palette

    def write_png(self, path: Path, labels: UInt8[np.ndarray, "h w"]) -> None:
        starts = range(0, len(labels), STRIP_ROWS)
        strips = (self.table[labels[start : start + STRIP_ROWS]] for start in starts)
        png_strips.write(
            path, labels.shape, strips, is_color=self.table.ndim == 2, palette=self.palette
        )

    @contextmanager
    def geotiff(self, path: Path, source: Any) -> Iterator[geotiff.LabelFile]:
        """Yields an open GeoTIFF of the size and place of `source`, to be filled with labels."""
        with geotiff.label_file(path, source, self.table, self.palette) as file:
            yield file

    def read(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Class numbers from a file that was written with these settings.

        Raises:
          UserError: the file cannot be read, or was written with others.
        """
        if path.suffix == ".tif":
            with geotiff.opened(path) as source:
                bands = source.read()
            stored = bands[0] if len(bands) == 1 else np.ascontiguousarray(bands.transpose(1, 2, 0))
        else:
            stored = decode.label(read_file(str(path)), str(path))
        if not self._is_stored:
            return stored
        values = self._info.values or ()
        colors = [[value] for value in values if not isinstance(value, int)]
        if colors:
            return ColorTable(colors, [], "the model")(stored, str(path))
        numbers = [value for value in values if isinstance(value, int)]
        return LabelTable(numbers, [], "the model")(stored, str(path))
