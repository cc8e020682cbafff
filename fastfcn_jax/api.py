"""The Python interface: a trained or converted model as one object that labels photographs."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from PIL import Image

from fastfcn_jax import models, pictures
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import convert
from fastfcn_jax.data import datasets, decode, exif
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference import predictor
from fastfcn_jax.inference.predictor import Prediction
from fastfcn_jax.weights import store

Photograph = np.ndarray | str | Path


class Model:
    """Labels photographs of any size; made by `load` and `load_pth`.

    Wherever a photograph is asked for, an RGB array, uint8 (h, w, 3), or the name
    of a file will do. A size seen for the first time may be compiled for; sizes
    announced by `predictor.expect` share few programs.

    Attributes:
      config: the whole configuration.
      info: name of the data set, class names, palette.
      module, variables: the bare Linen module and its {"params", "batch_stats"}.
      predictor: what runs them; see `fastfcn_jax.inference.predictor.Predictor`.
    """

    def __init__(
        self,
        config: ConfigDict,
        info: DatasetInfo,
        variables: dict[str, Any],
        *,
        protocol: str | None = None,
    ):
        self.config = config
        self.info = info
        self.module = models.build(config.model, info.num_classes)
        self.variables = variables
        self.predictor = predictor.build(config, self.module, variables, protocol=protocol)

    def __call__(self, image: Photograph) -> UInt8[np.ndarray, "h w"]:
        """Class indices at the photograph's own size."""
        return self.predictor(as_array(image))

    def predict(self, image: Photograph) -> Prediction:
        """Class indices, and the probability of each."""
        return self.predictor.predict(as_array(image), confidence=True)

    def logits(self, image: Photograph) -> Float[np.ndarray, "h w k"]:
        """Scores of every class at the photograph's own size: logits, or probabilities where
        the protocol averages those.
        """
        return self.predictor.scores(as_array(image))

    def predict_batch(self, images: Iterable[Photograph]) -> list[UInt8[np.ndarray, "_ _"]]:
        """Class indices of several photographs, of any sizes, in their order."""
        arrays = (as_array(image) for image in images)
        answers = dict(self.predictor.stream(enumerate(arrays)))
        return [answers[i].labels for i in range(len(answers))]

    def stream(self, images: Iterable[tuple[Any, Photograph]]) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for (key, photograph) without holding them all."""
        yield from self.predictor.stream((key, as_array(image)) for key, image in _pairs(images))

    def overlay(self, image: Photograph, *, opacity: float = 0.5) -> UInt8[np.ndarray, "h w 3"]:
        """The photograph under the colours of its predicted classes."""
        array = as_array(image)
        return pictures.overlay(array, self(array), self.info.palette, opacity)


def load(folder: str | Path, *, which: str = "best", protocol: str | None = None) -> Model:
    """Loads a model: a training's workdir, what `fastfcn_jax.convert` wrote, or published weights.

    Args:
      folder: a checkpoint folder, a registered name ("jpu_psp_cityscapes"; `fastfcn weights list`),
        "hf://OWNER/NAME", or a local folder as the Hugging Face hub has it.
      which: "best" or "latest" checkpoint.
      protocol: how to test ("single", "ms_flip", ...); None: as its configuration says.

    Raises:
      UserError: no such folder or name, no whole model in it, or `which` is neither word.
    """
    loaded = model_folder.load_model(store.checkpoint(folder), which)
    return Model(loaded.config, loaded.info, loaded.variables, protocol=protocol)


def load_pth(
    file: str | Path,
    config: str | Path | ConfigDict = "auto",
    *,
    classes: str | Path | None = None,
    weights: str | None = None,
    protocol: str | None = None,
) -> Model:
    """Reads weights of mmsegmentation or of the official code; nothing in the file is run.

    Args:
      file: `.pth` or `.safetensors`.
      config: the experiment whose model the file holds, e.g. "jpu_psp_ade20k"; "auto": told from
        the file's names and shapes.
      classes: file of class names (JSON, YAML or one a line), where `file` does not say them.
      weights: "ema" or "model", where the file has both; None: the averaged ones.

    Raises:
      UserError: the file cannot be read, or holds another model.
    """
    converted = convert.read(
        Path(file),
        convert.as_config(config),
        class_file=None if classes is None else Path(classes),
        weights=weights,
    )
    return Model(converted.config, converted.info, converted.variables, protocol=protocol)


def build(config: str | Path | ConfigDict, num_classes: int | None = None) -> nn.Module:
    """The bare Linen module of an experiment, with `init` and `apply`.

    Args:
      num_classes: None: as many as the configured data set has.

    Raises:
      UserError: no such experiment, or a data set whose classes are known only from its files.
    """
    config = _as_config(config)
    count = num_classes or config.model.num_classes
    return models.build(
        config.model, count or datasets.info(config.data.name, config.data.root).num_classes
    )


def as_array(image: object) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a photograph given as an array, a PIL picture or by its file's name.

    A PIL picture is turned upright by its EXIF orientation, as a file is.

    Raises:
      UserError: the file cannot be decoded, or it is no array uint8 (h, w, 3) with pixels.
    """
    if isinstance(image, str | Path):
        return read(Path(image))
    pixels = np.asarray(image)  # other libraries' arrays and pictures are taken too
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UserError(
            "an image is a uint8 array (height, width, 3) or the name of a file, "
            f"not {type(image).__name__} {pixels.dtype} {pixels.shape}."
        )
    return exif.turn(pixels, _orientation(image)) if isinstance(image, Image.Image) else pixels


def _pairs(images: Iterable[tuple[Any, Photograph]]) -> Iterator[tuple[Any, Photograph]]:
    """The same; UserError at the first that is no pair."""
    for pair in images:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(
                f"stream takes pairs (key, image), not {type(pair).__name__}; "
                "enumerate(images) makes them."
            )
        yield pair[0], pair[1]


def _orientation(picture: Image.Image) -> int:
    """1 to 8; PIL has turned a TIFF by now, and taken the tag away."""
    value = picture.getexif().get(exif.ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a photograph to RGB.

    Raises:
      UserError: the file is missing, damaged or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    return decode.image(data, str(path))


def _as_config(config: str | Path | ConfigDict) -> ConfigDict:
    return config if isinstance(config, ConfigDict) else experiment.load(str(config))


__all__: Sequence[str] = ("Model", "build", "load", "load_pth")
