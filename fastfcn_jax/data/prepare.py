"""Writes a published data set into ArrayRecord files: one sequential read per sample."""

import hashlib
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fastfcn_jax import cli
from fastfcn_jax.data import datasets
from fastfcn_jax.data.tfds import builders, prepared
from fastfcn_jax.errors import UserError


def prepare(name: str, root: str, output: str, splits: tuple[str, ...]) -> Path:
    """Prepares a data set, reads one sample of each split as a check, and returns its folder.

    Every image and label is decoded on the way. After an interruption, another call resumes with
    the first unfinished file.

    Raises:
      UserError: unknown name, incomplete or damaged data, or it is prepared already.
    """
    if name not in builders.BUILDERS:
        raise UserError(f"--name: no builder for '{name}'; known: {', '.join(builders.BUILDERS)}.")
    if prepared.find(output, name) is not None:
        raise UserError(
            f"{prepared.find(output, name)}: prepared already; remove it to do it again."
        )
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such folder; set --root to the data set as published.")
    sources = {split: datasets.load(name, root, split) for split in splits}
    keep = _unfinished_folder(Path(output), name, sources)
    builder = builders.BUILDERS[name](data_dir=output, splits=splits, keep=keep)
    skip: Any = "skip"  # the enum it belongs to is not public
    settings = tfds.download.DownloadConfig(manual_dir=root, compute_stats=skip)
    try:
        builder.download_and_prepare(download_config=settings, download_dir=str(keep / "downloads"))
    except UserError as error:  # TFDS prepends a line with the feature's name
        raise UserError(str(error).splitlines()[-1]) from error
    shutil.rmtree(keep)
    for split in splits:
        source = datasets.load(name, output, split)
        source[len(source) - 1]
        expected = datasets.DATASETS[name].SPLIT_SIZES.get(split, len(source))
        note = "" if len(source) == expected else f" (the published split has {expected})"
        print(f"{name} {split}: {len(source)} images{note}")
    directory = prepared.find(output, name)
    assert directory is not None, "it was written above"
    return directory


def _unfinished_folder(output: Path, name: str, sources: dict[str, datasets.Source]) -> Path:
    """Named after its samples, so that a changed data set does not resume with old shards."""
    ids = "\n".join(f"{split} {i}" for split, source in sources.items() for i in source.ids)
    folder = output / f"{name}.unfinished-{hashlib.sha256(os.fsencode(ids)).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def define(parser: cli.Parser) -> None:
    parser.need("--name", "cityscapes", "Data set, as in config.data.name.")
    parser.need(
        "--root", "DIR", "Folder of the data set as published.", type=cli.path, metavar="DIR"
    )
    parser.need("--output", "PREPARED", "Folder to write into.", type=cli.path, metavar="DIR")
    parser.add_argument("--splits", default="train,val", help="Splits, separated by commas.")


def run(arguments: Namespace) -> None:
    splits = tuple(arguments.splits.split(","))
    directory = prepare(arguments.name, str(arguments.root), str(arguments.output), splits)
    print(f"{directory}\nuse it with --config.data.root={arguments.output}")


COMMAND = cli.Command(
    name="prepare",
    example="fastfcn prepare --name cityscapes --root CITYSCAPES --output PREPARED",
    about="""Writes a published data set into a few ArrayRecord files, which a network disk reads
faster than thousands of small ones. An interrupted run resumes where it stopped.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
