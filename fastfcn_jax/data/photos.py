"""Writes the photographs of a data set into a folder: something to try `predict` on."""

from pathlib import Path

import cv2
from absl import flags

from fastfcn_jax import cli
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError


def write(source: datasets.Source, folder: Path, count: int) -> None:
    """Saves the first `count` images as `<id>.png`.

    Raises:
      UserError: the folder cannot be written.
    """
    for i in range(min(count, len(source))):
        path = folder / f"{source.ids[i].replace('/', '_')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), source[i].image[..., ::-1]):
            raise UserError(f"{path}: cannot be written; check --output.")


def main(_) -> None:
    source = datasets.load(_NAME.value, _ROOT.value, _SPLIT.value)
    write(source, Path(_OUTPUT.value), _COUNT.value)


if __name__ == "__main__":
    _NAME = flags.DEFINE_string("name", "synthetic", "Data set, as in config.data.name.")
    _ROOT = flags.DEFINE_string("root", "", "Its folder, as in config.data.root.")
    _SPLIT = flags.DEFINE_string("split", "val", "Which split.")
    _OUTPUT = flags.DEFINE_string("output", None, "Folder to write into.", required=True)
    _COUNT = flags.DEFINE_integer("count", 6, "How many photographs.", lower_bound=1)
    cli.run(main)
