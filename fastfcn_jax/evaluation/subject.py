"""A model and the images that it is evaluated on, and what identifies both."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fastfcn_jax import measured_forms, models, provenance
from fastfcn_jax.checkpoints import model_folder, orbax_store, preprocessing
from fastfcn_jax.checkpoints.model_folder import LoadedModel
from fastfcn_jax.config import experiment
from fastfcn_jax.data import datasets
from fastfcn_jax.data.source import Source
from fastfcn_jax.inference import predictor
from fastfcn_jax.inference.predictor import Predictor

PACKAGES = ("fastfcn_jax", "jax", "jaxlib", "numpy")  # those that compute the scores


class Subject(NamedTuple):
    """A loaded model and the images that it is evaluated on.

    folder: of the checkpoint.
    forms: how operations are computed, a value of `config.model.forms`.
    notes: for the user.
    """

    folder: Path
    loaded: LoadedModel
    config: ConfigDict
    source: Source
    predictor: Predictor
    forms: str
    notes: tuple[str, ...]


def prepare(folder: Path, config: str | Path | ConfigDict | None, protocol: str | None) -> Subject:
    """Loads the model of a checkpoint folder and opens its validation split.

    Args:
      config: data and test settings; None: as stored with the model.
      protocol: overrides `config.eval.protocol`.

    Raises:
      UserError: no checkpoint, no data, or other classes than the model has.
    """
    loaded = model_folder.load_model(folder)
    if config is None:
        config = loaded.config
    else:
        chosen = config if isinstance(config, ConfigDict) else experiment.load(str(config))
        config = preprocessing.as_trained(loaded.config, chosen)
    source = datasets.open_split(config.data, config.data.val_split)
    note = model_folder.compare_classes(folder, loaded.info, source.info)
    computed, choice = measured_forms.resolved(loaded.config)
    notes = (note, choice.note if choice.file is not None else "")
    model = models.build(computed.model, loaded.info.num_classes)
    tested = predictor.build(config, model, loaded.variables, protocol=protocol)
    return Subject(
        folder, loaded, config, source, tested, choice.forms, tuple(x for x in notes if x)
    )


def facts(found: Subject) -> dict[str, Any]:
    """What decides the counts, by name: shares of one evaluation have it in common."""
    info, ids = found.source.info, found.source.ids
    stored = experiment.to_json(found.config)
    for key in experiment.PER_HOST:
        stored["data"].pop(key)
    for key in ("protocol", "max_images"):  # the first is below, the second for trainings
        stored["eval"].pop(key)
    versions = provenance.versions()
    listed = hashlib.sha256("\n".join(ids).encode(errors="surrogateescape")).hexdigest()
    return {
        "checksum of the weights": orbax_store.checksum(found.loaded.variables),
        "protocol": found.predictor.protocol.name,
        "test": found.predictor.protocol.definition,
        "classes": list(info.class_names),
        "set of images": [info.name, len(ids), listed],
        **{f"config.{s}.{k}": v for s in ("data", "eval") for k, v in stored[s].items()},
        **{f"config.model.{k}": v for k, v in _network(found).items()},
        **{f"version of {name}": versions[name] for name in PACKAGES},
    }


def _network(found: Subject) -> dict[str, Any]:
    # Forms round differently; another machine may have measured others.
    return {**experiment.to_json(found.loaded.config)["model"], "forms": found.forms}
