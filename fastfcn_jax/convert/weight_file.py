"""Reads a file of weights in any of the three formats."""

import os

from fastfcn_jax.convert import pdparams, pth, safetensors_file
from fastfcn_jax.convert.pth import ReadResult


def read(path: str | os.PathLike, weights: str | None = None) -> ReadResult:
    """Reads a `.safetensors` file, Paddle's `.pdparams` or, with any other name, a PyTorch file.

    Args:
      weights: "ema" or "model", if the file has both; see `state_dicts.find`.

    Raises:
      UserError: the file is absent, damaged, of another kind, or holds no weights.
    """
    if os.fspath(path).endswith(".safetensors"):
        return safetensors_file.read(path, weights)
    if os.fspath(path).endswith(".pdparams"):
        return pdparams.read(path)
    return pth.read(path, weights)
