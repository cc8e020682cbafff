"""Weights of a PyTorch `.pth` file to a checkpoint folder, and back.

python -m fastfcn_jax.convert --input FILE.pth --config CONFIG --output DIR [--reset-head]
python -m fastfcn_jax.convert --input DIR --output FILE.pth --to mmseg|official

The configuration says which model the file is to be, and `--config.…` overrides work; lineage,
depth, neck, head, widths and class count of the file are held against it.
"""

import os
import shutil
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fastfcn_jax import cli
from fastfcn_jax.config import experiment
from fastfcn_jax.errors import UserError


def to_folder(path: Path, config: ConfigDict, output: Path, *, reset_head: bool = False):
    """Converts a `.pth` file into the checkpoint folder `output`; returns the `fit.Report`.

    Raises:
      UserError: the file cannot be read or holds another model, or `output` exists.
    """
    from fastfcn_jax.convert import pth
    from fastfcn_jax.data import datasets

    _refuse_existing(output)
    info = datasets.info(config.data.name, config.data.root)
    file = pth.read(path)

    from fastfcn_jax.checkpoints import model_folder  # JAX starts only after the file is accepted
    from fastfcn_jax.convert import fit
    from fastfcn_jax.training import run_card

    try:
        variables, report = fit.to_variables(
            file, config.model, info.num_classes, reset_head=reset_head, seed=config.seed
        )
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        card = model_folder.model_card(config, info, run_card.versions())
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

    _refuse_existing(output)
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


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise UserError(f"{output}: already exists; remove it or give another --output.")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: the folder it is to lie in does not exist.")


def main(_) -> None:
    source, output = Path(INPUT.value), Path(OUTPUT.value)
    if source.is_dir():
        if not TO.value:
            raise UserError(f"--input {source} is a folder: pass --to mmseg or --to official.")
        count = to_file(source, output, TO.value)
        print(f"{count} tensors -> {output}")
        return
    if not source.exists():
        raise UserError(f"--input {source}: there is no such file or folder.")
    if not CONFIG.value:
        raise UserError("--config is missing: the experiment whose model the file holds.")
    config, spec = experiment.from_flag()
    print(to_folder(source, config, output, reset_head=RESET_HEAD.value))
    print(f"{source} -> {output}  ({spec})")


if __name__ == "__main__":
    INPUT = flags.DEFINE_string(
        "input", None, "A .pth file, or a checkpoint folder.", required=True
    )
    OUTPUT = flags.DEFINE_string("output", None, "What to write: the other one.", required=True)
    CONFIG = config_flags.DEFINE_config_file("config", None, "The model that the .pth file holds.")
    TO = flags.DEFINE_enum("to", None, ["mmseg", "official"], "Whose code the .pth file is for.")
    RESET_HEAD = flags.DEFINE_bool("reset_head", False, "Start the classifiers anew (fine-tuning).")
    flags.DEFINE_alias("reset-head", "reset_head")
    cli.run(main)
