"""The Python interface: a trained or converted model as one object that labels photographs."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Num, UInt8
from ml_collections import ConfigDict

from fastfcn_jax import described, measured_forms, models, photographs, pictures
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import convert
from fastfcn_jax.data import datasets, pixel_type
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference import predictor
from fastfcn_jax.inference.plan import Plan
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.weights import store

Photograph = Any  # what `photographs.as_array` takes


class Model:
    """Labels photographs of any size; returned by `load` and `load_pth`.

    A photograph is a file name or address, bytes, a PIL image, or an array of NumPy, PyTorch or
    JAX; `photographs.as_array` says which arrays are taken. A model of other images than 8-bit RGB
    takes arrays and files of the type that `pixel` says. The first call at a size compiles a
    program and says so on standard error.

    Attributes:
      config: the whole configuration.
      info: name of the data set, class names, palette.
      module, variables: the bare Linen module and its {"params", "batch_stats"}.
      pixel: channels and type of the images that it takes.
      predictor: runs the model; see `fastfcn_jax.inference.predictor.Predictor`.
      origin: where the model came from.
      quiet: say nothing when a program is compiled.
      say: takes the sentence that says so; by default it is printed on standard error.
    """

    def __init__(
        self,
        config: ConfigDict,
        info: DatasetInfo,
        variables: dict[str, Any],
        *,
        protocol: str | None = None,
        origin: described.Origin = described.UNKNOWN,
        quiet: bool = False,
    ):
        self.config = config
        self.info = info
        computed, choice = measured_forms.resolved(config)
        if choice.file is not None and not quiet:
            _print(choice.note)
        self.module = models.build(computed.model, info.num_classes)
        self.variables = variables
        self.pixel = pixel_type.of(config.data)
        self.predictor = predictor.build(
            config, self.module, variables, protocol=protocol, info=info
        )
        self.origin = origin
        self.quiet = quiet
        self.say = _print
        self._compiled: set[tuple[Any, str]] = set()

    def __repr__(self) -> str:
        protocol = self.predictor.protocol
        return described.model(self.config, self.info, self.variables, protocol, self.origin)

    def __call__(self, image: Photograph) -> UInt8[np.ndarray, "h w"]:
        """Class indices at the photograph's own size."""
        return self.predictor(self._read(image, "labels"))

    def predict(self, image: Photograph) -> Prediction:
        """Class indices and their probabilities; shows itself in a notebook."""
        return self.predictor.predict(self._read(image, "confidence"), confidence=True)

    def logits(self, image: Photograph) -> Float[np.ndarray, "h w k"]:
        """Scores of every class at the photograph's own size: logits, or probabilities if
        the protocol averages probabilities.
        """
        return self.predictor.scores(self._read(image, "scores"))

    def predict_batch(self, images: Iterable[Photograph]) -> list[UInt8[np.ndarray, "_ _"]]:
        """Class indices of several photographs of any sizes, in the order given.

        Args:
          images: photographs, or a stacked array (n, h, w, 3).
        """
        arrays = (self._read(image, "labels") for image in photographs.several(images))
        answers = dict(self.predictor.stream(enumerate(arrays)))
        return [answers[i].labels for i in range(len(answers))]

    def stream(self, images: Iterable[tuple[Any, Photograph]]) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for each (key, photograph) without keeping all in memory.

        The order may differ from that of the input.
        """
        pairs = ((key, self._read(image, "labels")) for key, image in _pairs(images))
        yield from self.predictor.stream(pairs)

    def overlay(self, image: Photograph, *, opacity: float = 0.5) -> UInt8[np.ndarray, "h w 3"]:
        """The photograph overlaid with the colours of its predicted classes.

        A class called background is left clear.
        """
        array = photographs.as_array(image, self.pixel)
        clear = pictures.background(self.info.class_names)
        return pictures.overlay(array, self(array), self.info.palette, opacity, clear)

    def warmup(self, *sizes: Any) -> "Model":
        """Compiles now what photographs of these (height, width) need, and returns the model.

        Later calls at these sizes, `model(image)` and `model.predict(image)`, answer at once.

        Raises:
          UserError: a size is not a pair of whole numbers.
        """
        for size in sizes:
            if not isinstance(size, tuple | list) or len(size) != 2 or min(size) < 1:
                raise UserError(
                    f"{size!r} is not a size; give (height, width): model.warmup((360, 480))."
                )
            blank = np.zeros((*size, self.pixel.channels), self.pixel.dtype)
            self(blank)
            self.predict(blank)
        return self

    @property
    def programs(self) -> int:
        """How many programs have been compiled, or fetched from those kept on the disk."""
        return len(self._compiled)

    def forget_programs(self) -> None:
        """Frees the memory of all compiled programs; the next call of each size compiles again."""
        self.predictor.plan = Plan(self.predictor.protocol)
        self._compiled.clear()
        jax.clear_caches()

    def _read(self, image: Photograph, what: str) -> Num[np.ndarray, "h w c"]:
        """The photograph's pixels; says so if its size needs a new program for `what`."""
        array = photographs.as_array(image, self.pixel)
        group = self.predictor.plan.group(array.shape[:2])
        if not self.quiet and (group, what) not in self._compiled:
            height, width = array.shape[:2] if group.exact else group.output
            shown = f"{height}x{width}" if group.exact else f"sizes up to {height}x{width}"
            self.say(f"compiling for {shown} (once)")
        self._compiled.add((group, what))
        return array


def load(
    folder: str | Path,
    *,
    which: str = "best",
    protocol: str | None = None,
    quiet: bool = False,
) -> Model:
    """Loads a model from a training workdir, a folder of converted weights, or published weights.

    Args:
      folder: a checkpoint folder, a registered name ("jpu_psp_cityscapes"; `fastfcn weights list`),
        "hf://OWNER/NAME", or a local copy of a Hugging Face model repository.
      which: "best" or "latest" checkpoint.
      protocol: how to test ("single", "ms_flip", ...); None: the configured protocol.
      quiet: do not say on standard error when a program is compiled.

    Raises:
      UserError: no such folder or name, no intact model in it, or another value of `which`.
    """
    loaded = model_folder.load_model(store.checkpoint(folder), which)
    return Model(
        loaded.config,
        loaded.info,
        loaded.variables,
        protocol=protocol,
        origin=described.Origin(str(folder), loaded.step, loaded.score),
        quiet=quiet,
    )


def load_pth(
    file: str | Path,
    config: str | Path | ConfigDict = "auto",
    *,
    classes: str | Path | None = None,
    weights: str | None = None,
    protocol: str | None = None,
    quiet: bool = False,
) -> Model:
    """Reads weights of mmsegmentation or of the official code; never executes code in the file.

    Args:
      file: `.pth` or `.safetensors`.
      config: the experiment whose model the file contains, e.g. "jpu_psp_ade20k"; "auto": inferred
        from the names and shapes of the arrays.
      classes: file of class names (JSON, YAML or one per line), if `file` does not contain them.
      weights: "ema" or "model", if the file has both; None: the averaged weights (EMA).
      protocol: how to test, as of `load`.
      quiet: as of `load`.

    Raises:
      UserError: the file cannot be read, or contains another model.
    """
    converted = convert.read(
        Path(file),
        convert.as_config(config),
        class_file=None if classes is None else Path(classes),
        weights=weights,
    )
    return Model(
        converted.config,
        converted.info,
        converted.variables,
        protocol=protocol,
        origin=described.Origin(str(file), converted.report.step),
        quiet=quiet,
    )


def build(config: str | Path | ConfigDict, num_classes: int | None = None) -> nn.Module:
    """The bare Linen module of an experiment, with `init` and `apply`.

    Args:
      num_classes: None: the number of classes of the configured data set.

    Raises:
      UserError: no such experiment, or the data set's classes are stored in files that are missing.
    """
    config = _as_config(config)
    count = num_classes or config.model.num_classes
    if count == 1:  # one channel, for two classes
        count = 2
    return models.build(
        config.model, count or datasets.info(config.data.name, config.data.root).num_classes
    )


def _print(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _pairs(images: Iterable[tuple[Any, Photograph]]) -> Iterator[tuple[Any, Photograph]]:
    """Yields the pairs unchanged; raises UserError at the first item that is not a pair."""
    for pair in images:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(
                f"stream takes pairs (key, image), not {type(pair).__name__}; "
                "enumerate(images) makes them."
            )
        yield pair[0], pair[1]


def _as_config(config: str | Path | ConfigDict) -> ConfigDict:
    return config if isinstance(config, ConfigDict) else experiment.load(str(config))


__all__: Sequence[str] = ("Model", "Prediction", "build", "load", "load_pth")
