"""Reads Paddle's `.pdparams` files into NumPy without Paddle, executing none of them; writes them.

`paddle.save` writes one pickle: a dictionary from names to NumPy arrays or to pairs of Paddle's own
name and an array, and a dictionary of those names under `StructuredToParameterName@@`.
"""

import dataclasses
import io
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastfcn_jax.convert import inert_pickle, state_dicts
from fastfcn_jax.convert.containers import BrokenFileError, refuse_other_kinds
from fastfcn_jax.convert.inert_pickle import BrokenPickleError, Global, Stub, printable
from fastfcn_jax.convert.pth import ReadResult
from fastfcn_jax.convert.state_dicts import NoWeightsError
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import write_bytes

_PAIRS_OF_NAMES = "StructuredToParameterName@@"
_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")  # u2 is Paddle's bfloat16


@dataclasses.dataclass(eq=False)
class _Dtype:
    """A type under construction: NumPy gives it its byte order afterwards."""

    kind: str
    order: Any = "="


@dataclasses.dataclass(eq=False)
class _Array:
    """An array under construction: shape, type and bytes come afterwards."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = None
    data: Any = None


def read(path: str | os.PathLike) -> ReadResult:
    """Reads every array of the file, under Paddle's names and in Paddle's layout.

    Raises:
      UserError: the file is absent, damaged, of another kind, or holds no weights.
    """
    path = Path(path)
    stubbed: set[str] = set()

    def reduce(name: str, arguments: tuple) -> Any:
        known = _known(name, arguments)
        if known is None:
            stubbed.add(name)
        return Stub(name) if known is None else known

    try:
        content = path.read_bytes()
        refuse_other_kinds(content[:512])
        if content.startswith(b"PK"):
            raise BrokenFileError("this is a zip archive, and Paddle's weights are a pickle")
        top = inert_pickle.load(
            io.BytesIO(content),
            reduce=reduce,
            persistent=lambda identifier: Stub("persistent object"),
            build=_build,
        )
        if not isinstance(top, dict):
            raise BrokenFileError("it holds no dictionary of weights")
        entries = {name: _value(value) for name, value in top.items() if name != _PAIRS_OF_NAMES}
        state_dicts.refuse_other_keys(entries)
        arrays = {n: _array(n, v) for n, v in entries.items() if isinstance(v, _Array)}
        if not arrays:
            raise NoWeightsError(f"it holds no weights; {state_dicts.seen(top)}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except NoWeightsError as error:
        raise UserError(f"{path}: {error}.") from error
    except (BrokenFileError, BrokenPickleError) as error:
        raise UserError(f"{path}: {printable(str(error))}.") from error
    others = tuple(name for name in entries if name not in arrays)
    return ReadResult(arrays, "Paddle's state dict (pickle)", tuple(sorted(stubbed)), others)


def _known(name: str, arguments: tuple) -> Any:
    """What a call of NumPy's or Python's means; None for any other."""
    match name, arguments:
        case "numpy dtype", (str() as kind, *_) if kind in _KINDS:
            return _Dtype(kind)
        case (
            "numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct",
            (Global("numpy ndarray"), *_),
        ):
            return _Array()
        case "_codecs encode", (str() as text, "latin1"):  # bytes, before protocol 3
            return text.encode("latin1", "replace")
        case "builtins tuple" | "__builtin__ tuple", (tuple() as items,):
            return items
    return None


def _build(result: Any, state: Any) -> None:
    match result, state:
        case _Dtype(), (_, "<" | ">" | "|" | "=" as order, *_):
            result.order = order
        case _Array(), (_, tuple() as shape, _Dtype() as dtype, fortran, bytes() as data):
            result.shape, result.dtype, result.fortran, result.data = shape, dtype, fortran, data


def _value(value: Any) -> Any:
    match value:
        case (str(), _Array() as array):
            return array
    return value


def _array(name: str, array: _Array) -> np.ndarray:
    shape, data = array.shape, array.data
    if data is None or not all(type(n) is int and 0 < n < 1 << 62 for n in shape) or len(shape) > 8:
        raise BrokenFileError(f"array {name[:80]} has a malformed shape or type")
    dtype = np.dtype(array.dtype.order + array.dtype.kind)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise BrokenFileError(f"array {name[:80]} has another size than its shape: it is damaged")
    order = "F" if array.fortran is True else "C"
    values = np.frombuffer(data, dtype).reshape(shape, order=order)
    return np.asarray(values, dtype.newbyteorder("="), order="C")


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict that `paddle.load` reads; its names and layouts must be Paddle's."""
    write_bytes(path, pickle.dumps(dict(arrays), protocol=4))
