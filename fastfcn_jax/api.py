"""The Python interface: a trained or converted model as one object that labels photographs."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Float, Num, UInt8
from ml_collections import ConfigDict
from PIL import Image

from fastfcn_jax import models, pictures
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import convert
from fastfcn_jax.data import datasets, exif, pixel_type, rasters
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference import predictor
from fastfcn_jax.inference.predictor import Prediction
from fastfcn_jax.weights import store

Photograph = np.ndarray | str | Path


class Model:
    """Labels photographs of any size; returned by `load` and `load_pth`.

    A photograph is an array or a file name: RGB, uint8 (h, w, 3), unless the model was
    trained on other images; then (h, w, c), or (h, w) of one channel, of the type that
    `pixel` says. An image size that has not been seen before may trigger a compilation;
    sizes announced with `predictor.expect` share few programs.

    Attributes:
      config: the whole configuration.
      info: name of the data set, class names, palette.
      module, variables: the bare Linen module and its {"params", "batch_stats"}.
      pixel: channels and type of the images that it takes.
      predictor: runs the model; see `fastfcn_jax.inference.predictor.Predictor`.
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
        self.pixel = pixel_type.of(config.data)
        self.predictor = predictor.build(config, self.module, variables, protocol=protocol)

    def __call__(self, image: Photograph) -> UInt8[np.ndarray, "h w"]:
        """Class indices at the photograph's own size."""
        return self.predictor(as_array(image, self.pixel))

    def predict(self, image: Photograph) -> Prediction:
        """Class indices and their probabilities."""
        return self.predictor.predict(as_array(image, self.pixel), confidence=True)

    def logits(self, image: Photograph) -> Float[np.ndarray, "h w k"]:
        """Scores of every class at the photograph's own size: logits, or probabilities if
        the protocol averages probabilities.
        """
        return self.predictor.scores(as_array(image, self.pixel))

    def predict_batch(self, images: Iterable[Photograph]) -> list[UInt8[np.ndarray, "_ _"]]:
        """Class indices of several photographs of any sizes, in the order given."""
        arrays = (as_array(image, self.pixel) for image in images)
        answers = dict(self.predictor.stream(enumerate(arrays)))
        return [answers[i].labels for i in range(len(answers))]

    def stream(self, images: Iterable[tuple[Any, Photograph]]) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for each (key, photograph) without keeping all in memory.

        The order may differ from that of the input.
        """
        arrays = ((key, as_array(image, self.pixel)) for key, image in _pairs(images))
        yield from self.predictor.stream(arrays)

    def overlay(self, image: Photograph, *, opacity: float = 0.5) -> UInt8[np.ndarray, "h w 3"]:
        """The photograph overlaid with the colours of its predicted classes.

        A class called background is left clear.
        """
        array = as_array(image, self.pixel)
        clear = pictures.background(self.info.class_names)
        return pictures.overlay(array, self(array), self.info.palette, opacity, clear)


def load(folder: str | Path, *, which: str = "best", protocol: str | None = None) -> Model:
    """Loads a model from a training workdir, a folder of converted weights, or published weights.

    Args:
      folder: a checkpoint folder, a registered name ("jpu_psp_cityscapes"; `fastfcn weights list`),
        "hf://OWNER/NAME", or a local copy of a Hugging Face model repository.
      which: "best" or "latest" checkpoint.
      protocol: how to test ("single", "ms_flip", ...); None: the configured protocol.

    Raises:
      UserError: no such folder or name, no intact model in it, or another value of `which`.
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
    """Reads weights of mmsegmentation or of the official code; never executes code in the file.

    Args:
      file: `.pth` or `.safetensors`.
      config: the experiment whose model the file contains, e.g. "jpu_psp_ade20k"; "auto": inferred
        from the names and shapes of the arrays.
      classes: file of class names (JSON, YAML or one per line), if `file` does not contain them.
      weights: "ema" or "model", if the file has both; None: the averaged weights (EMA).

    Raises:
      UserError: the file cannot be read, or contains another model.
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
      num_classes: None: the number of classes of the configured data set.

    Raises:
      UserError: no such experiment, or the data set's classes are stored in files that are missing.
    """
    config = _as_config(config)
    count = num_classes or config.model.num_classes
    return models.build(
        config.model, count or datasets.info(config.data.name, config.data.root).num_classes
    )


def as_array(image: object, wanted: PixelType = RGB) -> Num[np.ndarray, "h w c"]:
    """The pixels of a photograph given as an array, a PIL image or a file name.

    PIL images are rotated according to their EXIF orientation, like files.

    Raises:
      UserError: the file cannot be decoded, or the array is empty or not of the type `wanted`.
    """
    if isinstance(image, str | Path):
        return read(Path(image), wanted)
    pixels = np.asarray(image)  # accepts arrays and images of other libraries
    if pixels.ndim == 2 and wanted.channels == 1:
        pixels = pixels[..., None]
    is_wanted = pixels.ndim == 3 and (pixels.shape[2], pixels.dtype.name) == wanted
    if not is_wanted or not pixels.size:
        raise UserError(
            f"an image is a {wanted.dtype} array (height, width, {wanted.channels}) or the name of "
            "a file, "
            f"not {type(image).__name__} {pixels.dtype} {pixels.shape}."
        )
    return exif.turn(pixels, _orientation(image)) if isinstance(image, Image.Image) else pixels


def _pairs(images: Iterable[tuple[Any, Photograph]]) -> Iterator[tuple[Any, Photograph]]:
    """Yields the pairs unchanged; raises UserError at the first item that is not a pair."""
    for pair in images:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(
                f"stream takes pairs (key, image), not {type(pair).__name__}; "
                "enumerate(images) makes them."
            )
        yield pair[0], pair[1]


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 to 8. PIL has already rotated a TIFF and removed its tag."""
    value = picture.getexif().get(exif.ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read(path: Path, wanted: PixelType = RGB) -> Num[np.ndarray, "h w c"]:
    """Decodes a photograph, by default to RGB.

    Raises:
      UserError: the file is missing, damaged, not an image, or of another type.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    return rasters.image(data, str(path), wanted)


def _as_config(config: str | Path | ConfigDict) -> ConfigDict:
    return config if isinstance(config, ConfigDict) else experiment.load(str(config))


__all__: Sequence[str] = ("Model", "build", "load", "load_pth")
