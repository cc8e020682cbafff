"""Reads the weights of a `.pth` file into NumPy without PyTorch and without executing any of it."""

import math
import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np

from fastfcn_jax.convert import file_meta, state_dicts
from fastfcn_jax.convert.containers import (
    BrokenFileError,
    Pickled,
    Tensor,
    open_legacy,
    open_zip,
    refuse_other_kinds,
)
from fastfcn_jax.convert.file_meta import FileMeta
from fastfcn_jax.convert.inert_pickle import BrokenPickleError, Stub, printable
from fastfcn_jax.convert.state_dicts import NoWeightsError
from fastfcn_jax.errors import UserError


class ReadResult(NamedTuple):
    """The contents of a file.

    Attributes:
      tensors: weights by name, without prefixes such as `module.`, in their stored dtype.
      kind: what wrote the file and its container, for the report.
      stubbed: names of Python objects in the file that were not read.
      others: names of entries next to the weights that are not tensors.
      found: where in the file the weights were; None: not from a file.
      meta: the file's metadata on classes and training.
    """

    tensors: dict[str, np.ndarray]
    kind: str
    stubbed: tuple[str, ...]
    others: tuple[str, ...] = ()
    found: state_dicts.Found | None = None
    meta: FileMeta = FileMeta()


def read(path: str | os.PathLike, weights: str | None = None) -> ReadResult:
    """Reads every tensor of the file's state dict.

    Needs memory only for the state dict's storages; those of an optimizer are not read.

    Args:
      weights: "ema" or "model", if the file has both; see `state_dicts.find`.

    Raises:
      UserError: the file is absent, is not a PyTorch file, is damaged, or holds no weights.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise UserError(f"{path}: there is no such file.")
    if os.path.isdir(path):
        raise UserError(f"{path}: this is a folder; name the .pth file itself.")
    try:
        with open(path, "rb") as file:
            return _read_open(file, os.path.getsize(path), weights)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except NoWeightsError as error:
        raise UserError(f"{path}: {error}.") from error
    except (BrokenFileError, BrokenPickleError) as error:
        raise UserError(f"{path}: {printable(str(error))}.") from error


def _read_open(file: BinaryIO, file_bytes: int, weights: str | None) -> ReadResult:
    head = file.read(512)
    refuse_other_kinds(head)
    pickled = Pickled()
    if head.startswith(b"PK"):
        container, top, storage_bytes = "zip", *open_zip(file, file_bytes, pickled)
    else:
        container, top, storage_bytes = "legacy stream", *open_legacy(file, file_bytes, pickled)
    if isinstance(top, Stub):
        raise BrokenFileError(f"it holds a pickled {top.name[:80]}; save its state_dict() instead")
    if not isinstance(top, dict):
        raise BrokenFileError("it holds no dictionary of weights")
    found = state_dicts.find(top, lambda value: isinstance(value, Tensor), weights)
    entries = found.entries
    budget = _Budget(8 * file_bytes + (1 << 20))
    arrays = _Arrays(storage_bytes, budget)
    tensors = {k: arrays.tensor(k, v) for k, v in entries.items() if isinstance(v, Tensor)}
    others = tuple(k for k, v in entries.items() if not isinstance(v, Tensor))
    return ReadResult(
        tensors,
        f"{_kind(top, found)} ({container})",
        tuple(sorted(pickled.stubbed)),
        others,
        found,
        file_meta.read(top),
    )


class _Budget:
    """Bytes that reading may still allocate, so that a file cannot claim far more than its size."""

    def __init__(self, limit: int):
        self._left = limit

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BrokenFileError("its tensors together are far larger than the file itself")


class _Arrays:
    """Turns described tensors into arrays, reading each storage once."""

    def __init__(self, storage_bytes: Callable[[str], bytes], budget: _Budget):
        self._storage_bytes = storage_bytes
        self._budget = budget
        self._storages: dict[str, bytes] = {}

    def _bytes(self, key: str) -> bytes:
        if key not in self._storages:
            self._storages[key] = self._storage_bytes(key)
            self._budget.spend(len(self._storages[key]))
        return self._storages[key]

    def tensor(self, name: str, tensor: Tensor) -> np.ndarray:
        """The tensor as an array or a read-only view, after checking its bounds."""
        storage, offset, shape, strides = tensor
        name = f"tensor {name[:80]}"
        if len(shape) != len(strides) or len(shape) > 8:
            raise BrokenFileError(f"{name} has a malformed shape")
        numbers = (storage.count, storage.start, offset, *shape, *strides)
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
            raise BrokenFileError(f"{name} has a malformed shape")
        elements = math.prod(shape)
        if not elements:
            raise BrokenFileError(f"{name} is empty")
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if last >= storage.count:
            raise BrokenFileError(f"{name} reaches beyond its storage: the file is damaged")
        self._budget.spend(elements * storage.dtype.itemsize)
        data = self._bytes(storage.key)
        if (storage.start + storage.count) * storage.dtype.itemsize > len(data):
            raise BrokenFileError(f"{name} reaches beyond its storage: the file is damaged")
        itemsize = storage.dtype.itemsize
        flat = np.frombuffer(data, storage.dtype, storage.count, storage.start * itemsize)[offset:]
        view = np.lib.stride_tricks.as_strided(flat, shape, [s * itemsize for s in strides])
        return np.asarray(view, order="C")


def _kind(top: dict, found: state_dicts.Found) -> str:
    """What wrote the file, for the report."""
    if not found.keys:
        return "plain state dict"
    if found.keys != "state_dict":
        return "training file"
    if "message_hub" in top:
        return "mmengine training file"
    return "official training file" if "best_pred" in top else "published model"
