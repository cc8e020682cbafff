"""Predicts photographs at their own resolution, tile by tile; GeoTIFFs of any size."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastfcn_jax import pictures
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import make_folder
from fastfcn_jax.predict import geotiff
from fastfcn_jax.predict.inputs import Photograph, Photographs
from fastfcn_jax.predict.label_maps import STRIP_ROWS
from fastfcn_jax.predict.manifest import Records
from fastfcn_jax.predict.writer import Result, Writer
from fastfcn_jax.terminal.progress import track

LEGEND_LINES = 2  # below a raster whose classes are not known when its overlay begins


def predict(model, photographs: Photographs, writer: Writer, manifest: Records) -> list[str]:
    """Writes the results of all readable images; returns a message about each of the others."""
    failures: list[str] = []
    for photograph in track(photographs, len(photographs), "predicting"):
        try:
            outputs = _predict_one(model, photograph, writer)
        except UserError as error:
            failures.append(str(error))
            manifest.failed(photograph.stem, photograph.source, str(error))
        else:
            manifest.ok(photograph.stem, photograph.source, outputs)
    return failures


def _predict_one(model, photograph: Photograph, writer: Writer) -> tuple[str, ...]:
    from fastfcn_jax.inference.prediction import Prediction
    from fastfcn_jax.inference.tiles import predict_tiles

    settings, path = writer.settings, photograph.path
    if path is not None and settings.is_georeferenced(path):
        with geotiff.opened(path) as source:
            # The values of other types are stretched for the overlay, strips of them differently.
            if geotiff.is_read_in_windows(source, model.pixel) and (
                model.pixel.dtype == "uint8" or not settings.overlay
            ):
                _predict_raster(model, source, photograph.stem, writer)
                return writer.outputs(photograph)
    image = photograph.decode(model.pixel)
    labels = predict_tiles(model.predictor, image, settings.tile)
    written = writer.write(Result(photograph, image, Prediction(labels, None), None))
    if written.reason:
        raise UserError(written.reason)
    return written.outputs


def _predict_raster(model, source: Any, stem: str, writer: Writer) -> None:
    """Reads and writes a raster window by window; with outlines its labels are in memory."""
    from fastfcn_jax.inference.tiles import predict_bands

    settings, info, image = writer.settings, writer.info, geotiff.Raster(source, model.pixel)
    height, width = image.shape[:2]
    counts = np.zeros(256, np.int64)
    whole = np.empty((height, width), np.uint8) if settings.polygons == "geojson" else None
    make_folder((writer.folder / stem).parent)
    with writer.label_maps.geotiff(writer.folder / f"{stem}.tif", source) as file:

        def drawn() -> Iterator[np.ndarray]:
            for (first, last), band in predict_bands(model.predictor, image, settings.tile):
                file[first:last, 0:width] = band
                counts[:] += pictures.counts(band)
                if whole is not None:
                    whole[first:last] = band
                for start in range(first, last, STRIP_ROWS) if settings.overlay else ():
                    stop = min(start + STRIP_ROWS, last)
                    yield writer.drawn(
                        image[start:stop, 0:width], band[start - first : stop - first]
                    )
            if settings.legend:
                yield pictures.legend_of(
                    counts, info.class_names, info.palette, width, LEGEND_LINES
                )

        if settings.overlay:
            below = LEGEND_LINES * pictures.LINE if settings.legend else 0
            writer.write_strips(stem, (height + below, width), drawn())
        else:
            deque(drawn(), maxlen=0)  # nothing is drawn
        if whole is not None:
            writer.write_outlines(stem, whole, geotiff.to_lonlat(source))
