"""Converts a `.pth`, `.safetensors` or `.pdparams` file to a checkpoint folder and back.

With a configuration, the file's lineage, depth, neck, head, widths and class count must agree with
it. Without one, they are taken from the file.
"""

import os
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from fastfcn_jax import files, provenance
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import weight_file
from fastfcn_jax.errors import UserError


def read(
    path: Path,
    config: ConfigDict | None = None,
    *,
    class_file: Path | None = None,
    weights: str | None = None,
    reset_head: bool = False,
):
    """Reads a file of weights as the model that `config` describes.

    Args:
      config: None: the configuration is built from the file's names, shapes and `meta`.
      class_file: class names (JSON, YAML or text), if the weights' file has none or wrong ones.
      weights: "ema" or "model", if the file has both; None: the averaged ones.
      reset_head: initialise new classifiers for the classes of the data set (or `class_file`).

    Returns:
      An `interpret.Converted`.

    Raises:
      UserError: the file cannot be read, or holds another model.
    """
    file = weight_file.read(path, weights)

    from fastfcn_jax.convert import interpret  # JAX starts only after the file is read

    try:
        return interpret.interpret(file, config, class_file=class_file, reset_head=reset_head)
    except UserError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from error


def to_folder(
    path: Path,
    config: ConfigDict | None,
    output: Path,
    *,
    class_file: Path | None = None,
    weights: str | None = None,
    reset_head: bool = False,
):
    """Converts a file into the checkpoint folder `output`; returns the `fit.Report`.

    The arguments are those of `read`.

    Raises:
      UserError: the file cannot be read or holds another model, or `output` exists.
    """
    files.refuse_existing(output)
    converted = read(path, config, class_file=class_file, weights=weights, reset_head=reset_head)

    from fastfcn_jax.checkpoints import model_folder

    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        card = model_folder.model_card(converted.config, converted.info, provenance.versions())
        step = converted.report.step
        model_folder.save_model(partial, converted.variables, card, step=step)
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return converted.report


def to_file(folder: Path, output: Path, to: str) -> int:
    """Writes the best model of a checkpoint folder as a file; returns its tensor count.

    The file is a `.pth`, for `to="paddleseg"` a `.pdparams`.

    Raises:
      UserError: the folder holds no model, or one of another lineage, or `output` exists.
    """
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.convert import fit, pdparams, pth_writer

    files.refuse_existing(output)
    loaded = model_folder.load_model(folder)
    lineage = loaded.config.model.lineage
    if lineage != to:
        raise UserError(
            f"{folder}: holds a model of the {lineage} lineage, which the {to} code cannot load; "
            f"pass --to {lineage}."
        )
    tensors = fit.to_tensors(loaded.variables, to, step=loaded.step)
    if to == "paddleseg":
        pdparams.write(output, tensors)
    else:
        pth_writer.write(output, tensors, to, loaded.info)
    return len(tensors)


def convert(
    input: str | Path,
    output: str | Path,
    *,
    config: str | Path | ConfigDict = "auto",
    classes: str | Path | None = None,
    weights: str | None = None,
    to: str | None = None,
    reset_head: bool = False,
) -> str:
    """Converts a file of weights into a checkpoint folder, or a checkpoint folder into a `.pth`.

    Args:
      config: the experiment whose model the file holds; "auto": recognised from the file.
      classes: file of class names, if the weights' file does not have them.
      weights: "ema" or "model", if the file has both; None: the averaged ones.
      to: "mmseg", "official" or "paddleseg": the code that the written file is for.
      reset_head: initialise new classifiers (fine-tuning on other classes).

    Returns:
      A report of what was converted.

    Raises:
      UserError: the input cannot be read or holds another model, or the output exists.
    """
    source, target = Path(input).expanduser(), Path(output).expanduser()
    if source.is_dir():
        if to is None:
            raise UserError(
                f"--input {source} is a folder: pass --to mmseg, official or paddleseg."
            )
        return f"{to_file(source, target, to)} tensors -> {target}"
    if not source.exists():
        raise UserError(f"--input {source}: there is no such file or folder.")
    report = to_folder(
        source,
        as_config(config),
        target,
        class_file=None if classes is None else Path(classes).expanduser(),
        weights=weights,
        reset_head=reset_head,
    )
    return f"{report}\n{source} -> {target}"


def as_config(config: str | Path | ConfigDict) -> ConfigDict | None:
    """The configuration as an object; None for "auto"."""
    if isinstance(config, ConfigDict):
        return config
    return None if str(config) == "auto" else experiment.load(str(config))
