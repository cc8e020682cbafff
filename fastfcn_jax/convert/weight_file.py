"""Reads a file of weights in either of the two formats."""

import os

from fastfcn_jax.convert import pth, safetensors_file
from fastfcn_jax.convert.pth import ReadResult


def read(path: str | os.PathLike, weights: str | None = None) -> ReadResult:
    """Reads the tensors of a `.safetensors` file or, with any other name, of a PyTorch file.

    Args:
      weights: "ema" or "model", if the file has both; see `state_dicts.find`.

    Raises:
      UserError: the file is absent, damaged, of another kind, or holds no weights.
    """
    if os.fspath(path).endswith(".safetensors"):
        return safetensors_file.read(path, weights)
    return pth.read(path, weights)
