"""The one door: `fastfcn COMMAND`, the same as `python -m fastfcn_jax COMMAND`."""

import difflib
import importlib
import sys

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError

# command: (where its COMMAND is, what it does). Only the command that is called is imported.
COMMANDS = {
    "demo": ("demo", "train, evaluate and predict on generated street scenes"),
    "train": ("training.__main__", "train a configuration; run again, it goes on"),
    "eval": ("evaluation.__main__", "scores of a model on its validation data, and a report"),
    "predict": ("predict.__main__", "label photographs, folders and videos"),
    "serve": ("serve.__main__", "a page in the browser that labels photographs"),
    "doctor": ("doctor.__main__", "check data and settings; make ready a folder of photographs"),
    "convert": ("convert.__main__", "PyTorch weights in and out"),
    "weights": ("weights.__main__", "published weights by name: list, get, where"),
    "export": ("export.__main__", "a model as one file: StableHLO, ONNX, safetensors, TFLite"),
    "config": ("config.__main__", "list, show, compare and document configurations"),
    "bench": ("bench.__main__", "where the time of a training step goes on this device"),
    "replay": ("replay", "repeat steps of a training and compare them bit for bit"),
    "submit": ("submit", "files for the Cityscapes and ADE20K test servers"),
    "cache": ("data.cache", "decode a data set ahead of a training"),
    "prepare": ("data.prepare", "write a data set into ArrayRecord files"),
}


def command(name: str) -> cli.Command:
    """The command of a name.

    Raises:
      UserError: there is none; the message names those that are near.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 2)
        meant = f"did you mean {' or '.join(near)}?" if near else "`fastfcn` lists the commands."
        raise UserError(f"fastfcn {name}: no such command; {meant}")
    return importlib.import_module(f"fastfcn_jax.{COMMANDS[name][0]}").COMMAND


def overview() -> str:
    """All commands, a line each."""
    lines = [f"  {name:8} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "FastFCN in JAX: semantic segmentation with Joint Pyramid Upsampling.",
            "",
            *lines,
            "",
            "fastfcn COMMAND --help says more; fastfcn --version says which this is.",
        ]
    )


def main() -> int:
    """Runs the command line and returns its exit status."""
    return cli.guarded(_dispatch)


def _dispatch() -> int:
    from fastfcn_jax import __version__

    first, *rest = sys.argv[1:] or ["--help"]
    if first in ("--help", "-h", "help"):
        print(overview())
        return 0
    if first == "--version":
        print(f"fastfcn {__version__}")
        return 0
    return command(first).main(rest)


if __name__ == "__main__":
    sys.exit(main())
