"""Weights of a PyTorch `.pth` file to a checkpoint folder, and back."""

import os
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from fastfcn_jax import files, provenance
from fastfcn_jax.config import experiment
from fastfcn_jax.errors import UserError


def to_folder(path: Path, config: ConfigDict, output: Path, *, reset_head: bool = False):
    """Converts a `.pth` file into the checkpoint folder `output`; returns the `fit.Report`.

    Raises:
      UserError: the file cannot be read or holds another model, or `output` exists.
    """
    from fastfcn_jax.convert import pth
    from fastfcn_jax.data import datasets

    files.refuse_existing(output)
    info = datasets.info(config.data.name, config.data.root)
    file = pth.read(path)

    from fastfcn_jax.checkpoints import model_folder  # JAX starts only after the file is accepted
    from fastfcn_jax.convert import fit

    try:
        variables, report = fit.to_variables(
            file, config.model, info.num_classes, reset_head=reset_head, seed=config.seed
        )
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        card = model_folder.model_card(config, info, provenance.versions())
        model_folder.save_model(partial, variables, card, step=report.step)
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def to_file(folder: Path, output: Path, to: str) -> int:
    """Writes the best model of a checkpoint folder as a `.pth` file; returns its tensor count.

    Raises:
      UserError: the folder holds no model, or one of the other lineage, or `output` exists.
    """
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.convert import fit, pth_writer

    files.refuse_existing(output)
    loaded = model_folder.load_model(folder)
    lineage = loaded.config.model.lineage
    if lineage != to:
        raise UserError(
            f"{folder}: holds a model of the {lineage} lineage, which the {to} code does not "
            f"have; pass --to {lineage}."
        )
    tensors = fit.to_tensors(loaded.variables, to, step=loaded.step)
    pth_writer.write(output, tensors, to, loaded.info)
    return len(tensors)


def convert(
    input: str | Path,
    output: str | Path,
    *,
    config: str | Path | ConfigDict | None = None,
    to: str | None = None,
    reset_head: bool = False,
) -> str:
    """Converts a `.pth` file into a checkpoint folder, or a checkpoint folder into a `.pth` file.

    Args:
      config: the experiment whose model the `.pth` file holds.
      to: "mmseg" or "official": whose code the written `.pth` file is for.
      reset_head: start the classifiers anew (fine-tuning on other classes).

    Returns:
      What was converted, to be printed.

    Raises:
      UserError: the input cannot be read or holds another model, or the output exists.
    """
    source, target = Path(input).expanduser(), Path(output).expanduser()
    if source.is_dir():
        if to is None:
            raise UserError(f"--input {source} is a folder: pass --to mmseg or --to official.")
        return f"{to_file(source, target, to)} tensors -> {target}"
    if not source.exists():
        raise UserError(f"--input {source}: there is no such file or folder.")
    if config is None:
        raise UserError(
            "--config is missing: the experiment whose model the file holds, for example "
            "--config jpu_psp_cityscapes."
        )
    if not isinstance(config, ConfigDict):
        config = experiment.load(str(config))
    return f"{to_folder(source, config, target, reset_head=reset_head)}\n{source} -> {target}"
