"""Reads the weights of a `.pth` file into NumPy without PyTorch, running nothing that is in it."""

import math
import os
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastfcn_jax.convert.containers import (
    BrokenFileError,
    Pickled,
    Tensor,
    open_legacy,
    open_zip,
    refuse_other_kinds,
)
from fastfcn_jax.convert.inert_pickle import MAX_NAME, BrokenPickleError, Stub, printable
from fastfcn_jax.errors import UserError


class ReadResult(NamedTuple):
    """What a file holds.

    Attributes:
      tensors: weights by name, `module.` prefixes removed, in the type they were stored in.
      kind: what wrote the file and its container, for the report.
      stubbed: names of Python objects in the file that were left unread.
      others: names of entries beside the weights that are no tensors.
    """

    tensors: dict[str, np.ndarray]
    kind: str
    stubbed: tuple[str, ...]
    others: tuple[str, ...] = ()


def read(path: str | os.PathLike) -> ReadResult:
    """Reads every tensor of the file's state dict.

    Costs the memory of the state dict's own storages; those of an optimizer are not touched.

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
            return _read_open(file, os.path.getsize(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except (BrokenFileError, BrokenPickleError) as error:
        raise UserError(f"{path}: {printable(str(error))}.") from error


def _read_open(file: BinaryIO, file_bytes: int) -> ReadResult:
    head = file.read(512)
    refuse_other_kinds(head)
    pickled = Pickled()
    if head.startswith(b"PK"):
        container, top, storage_bytes = "zip", *open_zip(file, file_bytes, pickled)
    else:
        container, top, storage_bytes = "legacy stream", *open_legacy(file, file_bytes, pickled)
    entries, what = _find_state_dict(top)
    budget = _Budget(8 * file_bytes + (1 << 20))
    arrays = _Arrays(storage_bytes, budget)
    tensors = {k: arrays.tensor(k, v) for k, v in entries.items() if isinstance(v, Tensor)}
    others = tuple(k for k, v in entries.items() if not isinstance(v, Tensor))
    return ReadResult(tensors, f"{what} ({container})", tuple(sorted(pickled.stubbed)), others)


class _Budget:
    """Bytes that reading may still take up: a file cannot ask for much more than its own size."""

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
        """The tensor as an array of its own or a read-only view; checks every bound first."""
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


def _find_state_dict(top: Any) -> tuple[dict[str, Any], str]:
    """The dictionary of weights, without `module.` prefixes, and what kind of file it came from."""
    if isinstance(top, Stub):
        raise BrokenFileError(f"it holds a pickled {top.name[:80]}; save its state_dict() instead")
    if not isinstance(top, dict):
        raise BrokenFileError("it holds no dictionary of weights")
    entries, what = top, "plain state dict"
    if isinstance(top.get("state_dict"), dict):
        entries = top["state_dict"]
        what = "published model"
        if "message_hub" in top:
            what = "mmengine training file"
        elif "best_pred" in top:
            what = "official training file"
    elif isinstance(top.get("model"), dict):
        entries, what = top["model"], "training file"
    if not any(isinstance(value, Tensor) for value in entries.values()):
        raise BrokenFileError("it holds no weights (no tensor at its top or in `state_dict`)")
    if not all(isinstance(key, str) for key in entries):
        raise BrokenFileError("its weights are not named by strings")
    # Short names first: taking prefixes off one by one is quadratic in a name's length.
    if not all(len(key) <= MAX_NAME and key.isprintable() for key in entries):
        raise BrokenFileError("its weights have names that no program gives: not printable or long")
    while all(key.startswith("module.") for key in entries):
        entries = {key.removeprefix("module."): value for key, value in entries.items()}
    return entries, what
