"""Predicts photographs or a video and writes the results into a folder."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastfcn_jax import addresses
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import make_folder
from fastfcn_jax.predict import (
    chosen_model,
    coco_results,
    inputs,
    names,
    overlap,
    shards,
    tiled,
    video,
)
from fastfcn_jax.predict.announcement import announce
from fastfcn_jax.predict.inputs import Photograph, Photographs
from fastfcn_jax.predict.manifest import Call, Manifest, Records
from fastfcn_jax.predict.settings import Settings
from fastfcn_jax.predict.unfinished import Unfinished
from fastfcn_jax.predict.writer import Result, Writer
from fastfcn_jax.terminal.progress import track


class Summary(NamedTuple):
    """Number of photographs (or frames), and a message about each one that failed."""

    total: int
    failures: Sequence[str]


def predict(
    input: str | Path,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    model: str | Path | None = None,
    protocol: str | None = None,
    batch_size: int | None = None,
    overlay: bool = True,
    legend: bool = False,
    confidence: bool = False,
    save_logits: bool = False,
    values: str = "classes",
    polygons: str | None = None,
    georeference: bool = True,
    keep_suffix: bool = False,
    tile: int = 0,
    skip_existing: bool = False,
    shard: str | None = None,
) -> Summary:
    """Predicts the labels of photographs or a video and writes them into the folder `output`.

    Args:
      input: an image, a folder, a pattern of names, a video, "-" for standard input, or the
        address of a file, folder or pattern, such as s3://bucket/photos.
      output: the folder of the results, created if missing.
      checkpoint: a checkpoint folder or a published name; this or `model`.
      model: an exported file.
      protocol: how to test ("single", "ms_flip", …); None: as the model's configuration says.
      batch_size: images per pass; None: as the configuration says.
      overlay: write overlays; with `legend` the classes stand below them.
      legend: see `overlay`.
      confidence: also write the probability of each pixel's class.
      save_logits: also write all scores.
      values: what label maps hold: "classes", or "stored" as the data set's labels.
      polygons: also write outlines, as "geojson" or "coco".
      georeference: a GeoTIFF gives a GeoTIFF.
      keep_suffix: results are called `<name.suffix>.png`.
      tile: predict large pictures in tiles of so many pixels; 0: whole.
      skip_existing: leave out what this model and these settings have predicted into `output`.
      shard: "I/N", share I (from 0) of N; None: by the rank under `srun` or `mpirun`, else all.

    Raises:
      UserError: nothing to predict, no model, or a result would overwrite an input or another
        result.
    """
    settings = Settings(
        overlay=overlay,
        legend=legend,
        confidence=confidence,
        save_logits=save_logits,
        values=values,
        polygons=polygons,
        georeference=georeference,
        keep_suffix=keep_suffix,
        tile=tile,
    )
    share, said = shards.choose(shard, os.environ)
    source, folder = where(input, output)
    is_video = inputs.is_video(source)
    if is_video:
        _check_video(source, settings)
        found: Photographs = video.Single(Path(source), settings, share)
    else:
        found = inputs.find(source, folder, settings, share)
        names.refuse_to_overwrite(found, folder, settings)
    folders = [None if path is None else Path(path).expanduser() for path in (checkpoint, model)]
    loaded = chosen_model.load_model(  # JAX starts only after the arguments are accepted
        *folders, protocol=protocol, batch_size=batch_size, tile=tile
    )
    writer = Writer(folder, loaded.info, settings)
    choices = settings.described() | chosen_model.protocol(loaded)
    call = Call(chosen_model.checksum(loaded, folders[1]), choices)
    make_folder(folder)
    if said:
        print(said)
    with Manifest(folder, call, share, checkpoint=str(checkpoint or model)) as manifest:
        left: Photographs = Unfinished(found, writer, manifest) if skip_existing else found
        if is_video:
            return Summary(video.predict(loaded, left, writer, manifest), ())
        announce(loaded, left, settings)
        step = tiled.predict if tile else predict_photographs
        failures = step(loaded, left, writer, manifest)
    if polygons == "coco":
        path = folder / shards.file_name("predictions_coco", ".json", share)
        coco_results.write(path, predicted(found, writer), loaded.info)
    print(f"{len(found) - len(failures)} of {len(found)} images -> {folder}")
    return Summary(len(found), failures)


def where(input: str | Path, output: str | Path) -> tuple[str, Path]:
    """The input, a path or an address, and the folder of the results.

    Raises:
      UserError: the output is an address.
    """
    source, target = addresses.local(str(input)), addresses.local(str(output))
    if addresses.is_address(target):
        raise UserError(f"--output {target}: results go into a folder; give one, then copy it.")
    if not addresses.is_address(source):
        source = str(Path(source).expanduser())
    return source, Path(target).expanduser()


def _check_video(source: str, settings: Settings) -> None:
    if settings.tile or settings.polygons:
        raise UserError(f"{source}: --tile and --polygons are for photographs; leave them out.")


def predict_photographs(
    model, photographs: Photographs, writer: Writer, manifest: Records
) -> list[str]:
    """Writes the results of all readable images; returns a message about each of the others.

    Threads decode the next images and write the last results while the device computes.
    """
    failures: list[str] = []
    held: dict[Photograph, np.ndarray] = {}

    def images() -> Iterator[tuple[Photograph, np.ndarray]]:
        step = functools.partial(_decode, pixel=model.pixel)
        decoded = overlap.in_threads(step, photographs, weigh=lambda found: found[2])
        for photograph, image, _ in decoded:
            if isinstance(image, str):
                failures.append(image)
                manifest.failed(photograph.stem, photograph.source, image)
            else:
                held[photograph] = image
                yield photograph, image

    def results() -> Iterator[Result]:
        settings = writer.settings
        answers = model.predictor.stream(images(), confidence=settings.confidence)
        for photograph, prediction in answers:
            image = held.pop(photograph)
            logits = model.logits(image) if settings.save_logits else None
            yield Result(photograph, image, prediction, logits)

    written = overlap.in_threads(writer.write, results(), weigh=lambda done: done.bytes)
    for photograph, outputs, reason, _ in track(written, len(photographs), "predicting"):
        if reason:
            failures.append(reason)
            manifest.failed(photograph.stem, photograph.source, reason)
        else:
            manifest.ok(photograph.stem, photograph.source, outputs)
    return failures


def _decode(photograph: Photograph, pixel: PixelType) -> tuple[Photograph, np.ndarray | str, int]:
    """The pixels and their bytes, or what is wrong with the file."""
    try:
        image = photograph.decode(pixel)
    except UserError as error:
        return photograph, str(error), 0
    return photograph, image, image.nbytes


def predicted(found: Photographs, writer: Writer) -> Iterator[tuple[str, np.ndarray]]:
    """(name of the file, labels) of each photograph that has all its results."""
    for photograph in found:
        if writer.is_complete(photograph):
            path = writer.folder / writer.outputs(photograph)[0]
            yield photograph.name, writer.label_maps.read(path)
