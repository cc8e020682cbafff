"""Reads the weights of a `.safetensors` file, the Hugging Face hub's format for state dicts."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from fastfcn_jax.convert import state_dicts
from fastfcn_jax.convert.pth import ReadResult
from fastfcn_jax.errors import UserError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),  # not supported by the package's own NumPy reader
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def read(path: str | os.PathLike, weights: str | None = None) -> ReadResult:
    """Like `pth.read`; the format does not store classes, so `meta` is empty.

    Raises:
      UserError: the file is absent, damaged, of another kind, or holds no weights.
    """
    try:
        entries = safetensors.deserialize(Path(path).read_bytes())
        arrays = {name: _array(entry) for name, entry in entries}
        found = state_dicts.find(arrays, lambda value: isinstance(value, np.ndarray), weights)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: is not a complete .safetensors file ({error}).") from error
    except KeyError as error:
        raise UserError(
            f"{path}: holds numbers of type {error}, which no model here uses."
        ) from error
    except state_dicts.NoWeightsError as error:
        raise UserError(f"{path}: {error}.") from error
    return ReadResult(found.entries, "safetensors", (), (), found)


def _array(entry: dict) -> np.ndarray:
    return np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
