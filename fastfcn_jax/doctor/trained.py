"""A trained model with which the doctor looks at labels and photographs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from ml_collections import ConfigDict

from fastfcn_jax import measured_forms, models, runtime
from fastfcn_jax.checkpoints import model_folder, preprocessing
from fastfcn_jax.data import datasets, pixel_type
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.data.source import DatasetInfo, EncodedSource, Files, Source
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference import predictor
from fastfcn_jax.weights import store

LEAST = 1e-6  # probabilities are at least this, so that no single pixel decides a mean of logs


class Trained(NamedTuple):
    """A model, the configuration of its data, and its classes.

    given: the folder or published name that was asked for; folder: where it is.
    """

    given: Path
    folder: Path
    config: ConfigDict
    info: DatasetInfo
    predictor: predictor.Predictor

    @property
    def pixel(self) -> PixelType:
        """Type of the images that the model takes."""
        return pixel_type.of(self.config.data)

    def probabilities(self, image: Num[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
        """Probability of each class at each pixel of a photograph."""
        scores = self.predictor.scores(image)
        if self.predictor.protocol.merge != "probabilities":
            scores = np.exp(scores - scores.max(-1, keepdims=True))
        return np.maximum(scores / scores.sum(-1, keepdims=True), LEAST)

    def splits(self) -> Iterator[tuple[str, Source]]:
        """Training and validation split.

        Raises:
          UserError: they are missing, or their classes are not the model's.
        """
        d = self.config.data
        for split in dict.fromkeys((d.train_split, d.val_split)):
            source = datasets.open_split(d, split)
            if note := model_folder.compare_classes(self.folder, self.info, source.info):
                print(note)
            yield split, source


def load(given: Path, config: ConfigDict | None = None) -> Trained:
    """The model of a checkpoint folder; `config` overrides where its data are.

    Raises:
      UserError: there is no checkpoint.
    """
    folder = Path(store.checkpoint(given))
    runtime.cache_compilations()
    loaded = model_folder.load_model(folder)
    config = loaded.config if config is None else preprocessing.as_trained(loaded.config, config)
    computed, _ = measured_forms.resolved(loaded.config)
    model = models.build(computed.model, loaded.info.num_classes)
    built = predictor.build(config, model, loaded.variables)
    return Trained(given, folder, config, loaded.info, built)


def files_of(source: Source) -> Files | None:
    """The files of a source's photographs and labels, if it reads files."""
    read = source.read if isinstance(source, EncodedSource) else None
    return read if isinstance(read, Files) else None


def labelled(trained: Trained) -> set[Path]:
    """The photographs that the data set has already; none if it is not here."""
    known: Sequence[str] = ()
    try:
        for _, source in trained.splits():
            files = files_of(source)
            known = (*known, *(files.images if files else ()))
    except UserError:
        pass
    return {Path(name).resolve() for name in known}
