"""Interprets a file's tensors: the configuration of their model, its classes, its variables."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.convert import auto, detect, fit, output_classes
from fastfcn_jax.convert.file_meta import FileMeta
from fastfcn_jax.convert.pth import ReadResult
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.models import segmentor


class Converted(NamedTuple):
    """A file's weights as a model of this package, and a report on every tensor."""

    config: ConfigDict
    info: DatasetInfo
    variables: dict[str, Any]
    report: fit.Report


def interpret(
    file: ReadResult,
    config: ConfigDict | None,
    *,
    class_file: Path | None = None,
    reset_head: bool = False,
) -> Converted:
    """Fits the tensors of a file to the model that `config` describes; see `convert.read`.

    Raises:
      UserError: the file holds another model.
    """
    _refuse_other_pixels(file.meta)
    config, info, notes = _described(file, config, class_file, reset_head)
    variables, report = fit.to_variables(
        file,
        config.model,
        info.num_classes,
        reset_head=reset_head,
        seed=config.seed,
        channels=config.data.channels,
    )
    return Converted(config, info, variables, report._replace(notes=report.notes + notes))


def _described(
    file: ReadResult, config: ConfigDict | None, named: Path | None, reset_head: bool
) -> tuple[ConfigDict, DatasetInfo, tuple[str, ...]]:
    """The configuration of the file's model, its classes, and notes on what was assumed."""
    found = detect.of_tensors(file.tensors)
    notes = []
    if config is None:
        config, notes = auto.configuration(found, file.meta)
    # One channel decides between two classes.
    outputs = 2 if config.model.num_classes == found.num_classes == 1 else found.num_classes
    if named is not None:
        info = output_classes.read(named)
        if info.num_classes != outputs and not reset_head:
            raise UserError(
                f"--classes {named} names {info.num_classes} classes, and the file's classifier "
                f"has {outputs} to decide between; name each in their order"
            )
        return config, info, ()
    expected = output_classes.configured(config)
    if reset_head:
        if expected is None:
            raise UserError("--reset-head needs the classes of the new classifiers: --classes FILE")
        return config, expected, tuple(notes)
    wanted = config.model.num_classes or (expected and expected.num_classes) or outputs
    detect.refuse_differences(found, config.model, wanted)
    info, more = output_classes.of_outputs(file.meta, outputs, expected)
    return config, info, (*notes, *more)


def _refuse_other_pixels(meta: FileMeta) -> None:
    """Refuses a model whose input normalisation is not the one of the models here."""
    for given, ours in ((meta.mean, segmentor.MEAN), (meta.std, segmentor.STD)):
        if given and not (len(given) == 3 and np.allclose(given, ours, rtol=0, atol=0.01)):
            raise UserError(
                f"its photographs are normalised by {list(given)}, and the models here by "
                f"{list(ours)}: the weights would get other inputs than they were trained on"
            )
    if not meta.is_rgb:
        raise UserError("its model takes BGR photographs, and the models here RGB ones")
