"""Entry point of every command: `fastfcn COMMAND` or `python -m fastfcn_jax COMMAND`."""

import difflib
import importlib
import sys

from fastfcn_jax import cli
from fastfcn_jax.errors import UserError

# command: (module that defines its COMMAND, summary). Only the command being run is imported.
COMMANDS = {
    "demo": ("demo", "train, evaluate and predict on generated street scenes"),
    "train": ("training.__main__", "train a configuration, or resume its training"),
    "eval": ("evaluation.__main__", "score a model on its validation data and write a report"),
    "report": ("evaluation.report.__main__", "compare runs: curves, scores, settings"),
    "predict": ("predict.__main__", "label photographs, folders and videos"),
    "serve": ("serve.__main__", "label photographs on a web page"),
    "doctor": ("doctor.__main__", "check data and settings; prepare a folder of photographs"),
    "convert": ("convert.__main__", "convert weights from and to PyTorch"),
    "weights": ("weights.__main__", "published weights by name: list, get, where"),
    "export": ("export.__main__", "write a model as StableHLO, ONNX, safetensors or TFLite"),
    "config": ("config.__main__", "list, show, compare and document configurations"),
    "bench": ("bench.__main__", "time the parts of a training step on this device"),
    "replay": ("replay", "repeat training steps and compare them with the log, bit for bit"),
    "submit": ("submit", "make and check files for the Cityscapes and ADE20K test servers"),
    "cache": ("data.cache", "decode a data set before training"),
    "prepare": ("data.prepare", "write a data set into ArrayRecord files"),
}


def command(name: str) -> cli.Command:
    """Returns the command called `name`.

    Raises:
      UserError: no such command; the message suggests similar names.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 2)
        meant = f"did you mean {' or '.join(near)}?" if near else "`fastfcn` lists the commands."
        raise UserError(f"fastfcn {name}: no such command; {meant}")
    return importlib.import_module(f"fastfcn_jax.{COMMANDS[name][0]}").COMMAND


def overview() -> str:
    """All commands, one per line."""
    lines = [f"  {name:8} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "FastFCN in JAX: semantic segmentation with Joint Pyramid Upsampling.",
            "",
            *lines,
            "",
            "fastfcn COMMAND --help explains a command; fastfcn --version prints the version.",
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
