"""Reads a file of weights, whichever of the two formats it is in."""

import os

from fastfcn_jax.convert import pth, safetensors_file
from fastfcn_jax.convert.pth import ReadResult


def read(path: str | os.PathLike, weights: str | None = None) -> ReadResult:
    """Reads the tensors of a `.safetensors` file, or of one that PyTorch wrote (any other name).

    Args:
      weights: "ema" or "model", where the file has both; see `state_dicts.find`.

    Raises:
      UserError: the file is absent, damaged, of another kind, or holds no weights.
    """
    if os.fspath(path).endswith(".safetensors"):
        return safetensors_file.read(path, weights)
    return pth.read(path, weights)
