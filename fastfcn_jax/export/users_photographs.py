"""The user's photographs: int8 is calibrated on some, a file is compared with its source on others.

`--calibration` names a folder of photographs, or the root of the model's own data set, whose
labels then give scores as well.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num, UInt8
from ml_collections import ConfigDict

from fastfcn_jax.data import datasets, pixel_type, rasters
from fastfcn_jax.data.datasets import layout
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError

CALIBRATED = 100  # photographs; the range of an activation hardly changes with more
COMPARED = 500  # each runs twice, in float32 and in the file


class Photograph(NamedTuple):
    """A photograph and, where it is labelled, its class indices; 255 is ignored."""

    name: str
    image: Num[np.ndarray, "h w c"]
    label: UInt8[np.ndarray, "h w"] | None = None


Reader = Callable[[], Photograph]


class Given(NamedTuple):
    """Photographs to calibrate on and photographs to compare on, each read when it is called."""

    to_calibrate: list[Reader]
    to_compare: list[Reader]


def find(folder: Path, data: ConfigDict, *, calibrates: bool) -> Given:
    """The photographs of a folder, or of a data set its training and its validation split.

    No photograph serves for both, unless it is the only one.

    Args:
      data: `config.data` of the model; its name, splits and kind of images count.
      calibrates: whether some are needed to calibrate on; else all are to compare on.

    Raises:
      UserError: the folder holds neither photographs nor that data set.
    """
    pixel = pixel_type.of(data)
    if not folder.is_dir():
        raise UserError(f"--calibration {folder}: no such folder; give one with photographs.")
    if files := layout.pictures(folder, recursive=False):
        readers = [functools.partial(_read, file, pixel) for file in files]
        if calibrates and len(readers) > 1:
            return Given(_evenly(readers[::2], CALIBRATED), _evenly(readers[1::2], COMPARED))
        return Given(readers if calibrates else [], _evenly(readers, COMPARED))
    try:
        labelled = datasets.load(data.name, str(folder), data.val_split, pixel)
        training = (
            datasets.load(data.name, str(folder), data.train_split, pixel) if calibrates else None
        )
    except UserError as error:
        raise UserError(
            f"--calibration {folder}: holds no photographs, and is not the root of the data set "
            f"{data.name} ({str(error).rstrip('.')}); give a folder that is one of the two."
        ) from error
    return Given(
        [] if training is None else _evenly(_readers(training), CALIBRATED),
        _evenly(_readers(labelled), COMPARED),
    )


def _read(file: Path, pixel: PixelType) -> Photograph:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from error
    return Photograph(file.name, rasters.image(data, str(file), pixel))


def _readers(source: Source) -> list[Reader]:
    def read(index: int) -> Photograph:
        return Photograph(*source[index])

    return [functools.partial(read, index) for index in range(len(source))]


def _evenly(readers: Sequence[Reader], count: int) -> list[Reader]:
    """At most `count` of them, spread over all: neighbours are often frames of one film."""
    count = min(count, len(readers))
    return [readers[i * len(readers) // count] for i in range(count)]
