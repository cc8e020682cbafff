"""Writes the results of a photograph: labels, overlay, confidence, logits, outlines."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastfcn_jax import pictures
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import make_folder, write_array, write_image
from fastfcn_jax.predict import geojson, geotiff, png_strips
from fastfcn_jax.predict.inputs import Photograph
from fastfcn_jax.predict.label_maps import STRIP_ROWS, LabelMaps
from fastfcn_jax.predict.settings import CONFIDENCE, OVERLAY, Settings


class Result(NamedTuple):
    """A predicted photograph that waits to be written; `logits` if they are wanted."""

    photograph: Photograph
    image: np.ndarray
    prediction: Any
    logits: np.ndarray | None


class Written(NamedTuple):
    """What became of a photograph: its files, or why there are none.

    bytes: of memory that it took while it waited.
    """

    photograph: Photograph
    outputs: tuple[str, ...]
    reason: str
    bytes: int


class Writer:
    """Writes the results of one model into a folder."""

    def __init__(self, folder: Path, info, settings: Settings):
        self.folder = folder
        self.info = info
        self.settings = settings
        self.label_maps = LabelMaps(info, settings.values)
        self._clear = pictures.background(info.class_names)

    def outputs(self, photograph: Photograph) -> tuple[str, ...]:
        """The names below the folder of all results of a photograph."""
        endings = self.settings.endings(photograph.path)
        return tuple(f"{photograph.stem}{ending}" for ending in endings)

    def is_complete(self, photograph: Photograph) -> bool:
        """Whether all results are there; each is written as a whole or not at all.

        A power failure may leave a file empty that had just been written. A video without overlays
        is never complete: nothing tells how many frames it has.
        """
        try:
            names = self.outputs(photograph)
            return bool(names) and all(os.stat(self.folder / n).st_size > 0 for n in names)
        except OSError:
            return False

    def write(self, result: Result) -> Written:
        """Writes all results; sub-folders in the stem are created."""
        photograph, image, prediction, logits = result
        held = sum(a.nbytes for a in (image, prediction.labels, logits) if a is not None)
        try:
            make_folder((self.folder / photograph.stem).parent)
            self.write_values(photograph.stem, prediction, logits, photograph.path)
            if self.settings.overlay:
                self.write_overlay(photograph.stem, image, prediction.labels)
        except UserError as error:
            return Written(photograph, (), str(error), held)
        return Written(photograph, self.outputs(photograph), "", held)

    def write_values(self, stem: str, prediction, logits, source: Path | None = None) -> None:
        """Writes all results but the overlay; `source` is the photograph's file."""
        if self.settings.is_georeferenced(source):
            assert source is not None
            self._write_georeferenced(stem, prediction.labels, source)
        else:
            self.label_maps.write_png(self.folder / f"{stem}.png", prediction.labels)
            self.write_outlines(stem, prediction.labels, None)
        if prediction.confidence is not None:
            grey = np.round(255 * prediction.confidence).astype(np.uint8)
            write_image(self.folder / f"{stem}{CONFIDENCE}.png", grey)
        if logits is not None:
            write_array(self.folder / f"{stem}.npy", logits)

    def _write_georeferenced(self, stem: str, labels: np.ndarray, path: Path) -> None:
        with geotiff.opened(path) as source:
            if (source.height, source.width) != labels.shape:
                raise UserError(f"{path}: its orientation tag turns it; remove that tag.")
            with self.label_maps.geotiff(self.folder / f"{stem}.tif", source) as file:
                file[:, :] = labels
            self.write_outlines(stem, labels, geotiff.to_lonlat(source))

    def write_outlines(self, stem: str, labels: np.ndarray, to_lonlat) -> None:
        if self.settings.polygons == "geojson":
            geojson.write(self.folder / f"{stem}.geojson", labels, self.info, to_lonlat)

    def write_overlay(self, stem: str, image, labels) -> None:
        """Draws and writes the overlay strip by strip, with the legend below it if requested."""
        height, width = labels.shape
        image = pictures.as_rgb(image)  # as a whole: strips would be stretched differently
        rows = (slice(start, start + STRIP_ROWS) for start in range(0, height, STRIP_ROWS))
        strips: Iterable[np.ndarray] = (self.drawn(image[r], labels[r]) for r in rows)
        if self.settings.legend:
            legend = pictures.legend(labels, self.info.class_names, self.info.palette, width)
            strips, height = itertools.chain(strips, [legend]), height + len(legend)
        self.write_strips(stem, (height, width), strips)

    def write_strips(self, stem: str, size: tuple[int, int], strips: Iterable[np.ndarray]) -> None:
        """Writes the overlay of (height, width) `size` from strips of rows."""
        png_strips.write(self.folder / f"{stem}{OVERLAY}.png", size, strips)

    def drawn(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The photograph and its classes blended; a class called background is left clear."""
        return pictures.overlay(image, labels, self.info.palette, clear=self._clear)
