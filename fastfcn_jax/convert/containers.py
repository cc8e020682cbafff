"""Opens the two containers that torch.save writes: what they describe, and each storage's bytes.

Since PyTorch 1.6 a file is an uncompressed zip archive: `data.pkl` describes tensors as views into
storages, and `data/<key>` holds the bytes of one storage. Older files are one stream of five
pickles (magic number, protocol, machine, the object, the keys of the storages), then the storages.
"""

import io
import re
import struct
import zipfile
import zlib
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from fastfcn_jax.convert import inert_pickle
from fastfcn_jax.convert.inert_pickle import Global, Stub

MAX_PICKLE_BYTES = 256 << 20  # 160 000 steps of logged scalars in a training file take 50 MB
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int  # elements
    start: int  # first element within the storage `key` (old files hold views of storages)


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class BrokenFileError(Exception):
    """What is wrong with the file, as the end of a sentence."""


def refuse_other_kinds(head: bytes) -> None:
    """Raises `BrokenFileError` with the remedy if the file's first 512 bytes are not PyTorch's."""
    text = head.lstrip().lower()
    if not head:
        raise BrokenFileError("the file is empty; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise BrokenFileError("this is a Git LFS pointer, not the weights; run `git lfs pull`")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise BrokenFileError("this is a web page, not weights; the download failed, repeat it")
    if head[257:262] == b"ustar":
        raise BrokenFileError(
            "this is a tar archive; unpack it, or, if PyTorch 0.1 wrote it, save it again with "
            "a newer PyTorch"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        raise BrokenFileError("this is a compressed archive; unpack it first")
    if not head.startswith((b"PK", b"\x80")):
        raise BrokenFileError("this is not a PyTorch file; expected a zip archive or a pickle")


class Pickled:
    """Interprets the names in PyTorch's pickles; everything unknown becomes a stub."""

    def __init__(self):
        self.stubbed: set[str] = set()
        self._pairs_left = inert_pickle.MAX_OPCODES  # a file may repeat a list endlessly

    def load(self, stream: io.BytesIO) -> Any:
        return inert_pickle.load(stream, reduce=self.reduce, persistent=self.persistent)

    def reduce(self, name: str, arguments: tuple) -> Any:
        while (
            name == "torch._tensor _rebuild_from_type_v2"
        ):  # a loop: a hostile file may nest it thousands of times
            match arguments:
                case (Global() as call, _, tuple() as inner, _):
                    name, arguments = call.name, inner
                case _:
                    break
        match name, arguments:
            case "collections OrderedDict", ():
                return {}
            case "collections OrderedDict", (list() as pairs,) if self._are_pairs(pairs):
                return inert_pickle.to_dict([item for pair in pairs for item in pair])
            case (
                "torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor",
                (Storage() as storage, int() as offset, tuple() as shape, tuple() as strides, *_),
            ):
                return Tensor(storage, offset, shape, strides)
            case (
                "torch._utils _rebuild_parameter"
                | "torch._utils _rebuild_parameter_with_state"
                | "torch.nn.parameter Parameter",
                (Tensor() as tensor, *_),
            ):
                return tensor
            case "torch Size", (tuple() as shape,):
                return shape
        self.stubbed.add(name)
        return Stub(name)

    def persistent(self, identifier: Any) -> Any:
        if not isinstance(identifier, tuple) or len(identifier) > 6:
            return Stub("persistent object")
        match identifier:
            case ("storage", Global(name), str() as key, _, int() as count, *view) if (
                name.removeprefix("torch ") in _DTYPES
            ):
                dtype = _DTYPES[name.removeprefix("torch ")]
                if not view or view[0] is None:
                    return Storage(key, dtype, count, 0)
                match view[0]:
                    case (str(), int() as start, int() as view_count):
                        return Storage(key, dtype, view_count, start)
            case ("storage", Global(name), *_):
                self.stubbed.add(name)
        return Stub("persistent object")

    def _are_pairs(self, items: list) -> bool:
        self._pairs_left -= len(items)
        if self._pairs_left < 0:
            raise BrokenFileError("it names the same entries again and again")
        return all(isinstance(item, (list, tuple)) and len(item) == 2 for item in items)


def open_zip(file: BinaryIO, file_bytes: int, pickled: Pickled):
    """Returns the described object, and a function from storage key to the storage's bytes."""
    try:
        entries = {info.filename: info for info in zipfile.ZipFile(file).infolist()}
    except (
        zipfile.BadZipFile,
        struct.error,
        ValueError,
        OverflowError,
        OSError,
        NotImplementedError,
    ) as error:
        raise BrokenFileError("the zip archive is cut short or damaged; fetch it again") from error
    tops = [name.removesuffix("/data.pkl") for name in entries if re.match("[^/]+/data.pkl$", name)]
    if len(tops) != 1:
        inner = [name for name in entries if name.endswith((".pth", ".pt", ".tar"))]
        if inner:
            raise BrokenFileError(f"this is a zip archive around {inner[0][:80]}; unpack it first")
        raise BrokenFileError("this zip archive was not written by torch.save")
    top = tops[0]
    if f"{top}/constants.pkl" in entries:
        raise BrokenFileError("this is a TorchScript program; save its state_dict() instead")
    order = f"{top}/byteorder"
    if order in entries and _zip_bytes(file, file_bytes, entries, order) != b"little":
        raise BrokenFileError("it was written on a big-endian machine, which is not supported")
    description = _zip_bytes(file, file_bytes, entries, f"{top}/data.pkl", MAX_PICKLE_BYTES)
    result = pickled.load(io.BytesIO(description))
    return result, lambda key: _zip_bytes(file, file_bytes, entries, f"{top}/data/{key}")


def _zip_bytes(file, file_bytes, entries, name, limit=None) -> bytes:
    """The bytes of an uncompressed entry, after checking its bounds and its checksum."""
    info = entries.get(name)
    if info is None:
        raise BrokenFileError(f"its part {name[:80]} is missing")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise BrokenFileError("its zip entries are compressed or encrypted; save it again")
    if limit is not None and info.file_size > limit:
        raise BrokenFileError(f"its part {name[:80]} is larger than {limit} bytes")
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise BrokenFileError(f"its part {name[:80]} has no header")
    start = info.header_offset + 30 + int.from_bytes(header[26:28], "little")
    start += int.from_bytes(header[28:30], "little")
    if start + info.file_size > file_bytes:
        raise BrokenFileError(f"its part {name[:80]} reaches beyond the end of the file")
    file.seek(start)
    data = file.read(info.file_size)
    # A checksum of 0 means none: PyTorch can be told not to write them.
    if info.CRC and zlib.crc32(data) != info.CRC:
        raise BrokenFileError(f"its part {name[:80]} is damaged (wrong checksum); fetch it again")
    return data


def open_legacy(file: BinaryIO, file_bytes: int, pickled: Pickled):
    """Like `open_zip`, for the stream that PyTorch before 1.6 wrote."""
    file.seek(0)
    stream = io.BytesIO(file.read(min(file_bytes, MAX_PICKLE_BYTES)))
    if pickled.load(stream) != LEGACY_MAGIC:
        raise BrokenFileError("this is a pickle, but not one that torch.save wrote")
    if pickled.load(stream) != LEGACY_PROTOCOL:
        raise BrokenFileError("its protocol number is not that of torch.save")
    machine = pickled.load(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise BrokenFileError("it was written on a big-endian machine, which is not supported")
    seen: dict[str, Storage] = {}

    def persistent(identifier):
        storage = Pickled.persistent(pickled, identifier)
        if isinstance(storage, Storage):
            seen[storage.key] = storage._replace(count=identifier[4], start=0)
        return storage

    result = inert_pickle.load(stream, reduce=pickled.reduce, persistent=persistent)
    keys = pickled.load(stream)
    if not isinstance(keys, list):
        raise BrokenFileError("its list of storages is damaged")
    places = _legacy_places(file, stream.tell(), file_bytes, keys, seen)

    def storage_bytes(key: str) -> bytes:
        if key not in places:
            raise BrokenFileError(f"its storage {key[:80]} is missing")
        start, count = places[key]
        file.seek(start)
        return file.read(count)

    return result, storage_bytes


def _legacy_places(file, position, file_bytes, keys, seen) -> dict[str, tuple[int, int]]:
    """Where each storage's bytes are: for each key, an 8-byte element count, then the elements."""
    places = {}
    for key in keys:
        if not isinstance(key, str) or key not in seen:
            raise BrokenFileError("its list of storages names one that no tensor uses")
        file.seek(position)
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != seen[key].count:
            raise BrokenFileError(f"its storage {key[:80]} has another size than its tensors")
        size = count * seen[key].dtype.itemsize
        places[key] = (position + 8, size)
        position += 8 + size
        if count < 0 or position > file_bytes:
            raise BrokenFileError("its storages reach beyond its end: it was cut short")
    return places
