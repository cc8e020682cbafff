"""Result files that are either complete or absent, whatever bytes their names are made of."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax import text as text_files
from fastfcn_jax.errors import UserError

NOT_ALLOWED = ("PERMISSION_DENIED", "Permission denied", "Read-only file system")
MAX_NAME = 200  # bytes; most file systems take 255


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; what was written there becomes `path` at the end.

    The temporary name is short and ASCII with the suffix of `path`, so that it can be written
    wherever `path` can be.

    Raises:
      UserError: the disk is full, or cannot be written there.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        mended = unwritable(path, error)
        if mended is error:
            raise
        raise mended from error
    finally:
        with contextlib.suppress(OSError):  # which would hide why the writing failed
            temporary.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """Finds out before the work whether `path` can be written and would replace nothing.

    Raises:
      UserError: there is something of that name, or nothing can be written there.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: the folder it is to lie in does not exist.")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(path, error) from error
    else:
        raise UserError(f"{path}: already exists; remove it or give another --output.")
    probe = _temporary(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(path, error) from error


def _temporary(path: Path) -> Path:
    suffix = path.suffix if path.suffix.isascii() and len(path.suffix) < 16 else ""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def unwritable(path: Path, error: Exception) -> Exception:
    """A UserError where the disk is to blame, the error itself where the program is.

    Libraries that write by themselves report a full disk by errors of their own kinds.
    """
    if isinstance(error, UserError):
        return error
    text, name = str(error), text_files.shown(path)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in text for words in ("No space left", "ENOSPC", "Disk quota")):
        return UserError(f"{name}: no space left on the disk; free some and run again.")
    if isinstance(error, OSError):
        return UserError(f"{name} cannot be written: {error.strerror or first_line(error)}.")
    if any(words in text for words in NOT_ALLOWED):
        return UserError(f"{name} cannot be written: {first_line(error)}.")
    return error


def first_line(error: Exception) -> str:
    """What an exception says first, cut to a readable length."""
    text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def name_of(sample_id: str) -> str:
    """A sample's id as the name of one file, short enough with any suffix, in plain Unicode."""
    name = text_files.shown(sample_id).replace("/", "_")
    if len(name.encode()) <= MAX_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(sample_id)).hexdigest()[:16]
    return f"{name.encode()[: MAX_NAME - 17].decode(errors='ignore')}-{digest}"


def make_folder(output: Path) -> Path:
    """Makes the folder of --output where it does not exist.

    Raises:
      UserError: there is a file of that name, or nothing can be written there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {output}: no folder can be made there ({error.strerror}); give another."
        ) from error
    return output


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """In UTF-8; bytes of file names that are none are written as `\\xdf`.

    After a power loss the file has its old content or the new one.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(text_files.shown(text).encode())
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_image(path: Path, image: UInt8[np.ndarray, "..."]) -> None:
    """Writes a grey or RGB picture in the format that the suffix names."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Not imwrite, which ends the process at a name that is not UTF-8.
    encodes, encoded = cv2.imencode(path.suffix, image)
    if not encodes:
        raise UserError(f"{path}: {path.suffix} cannot hold a picture of shape {image.shape}.")
    write_bytes(path, encoded.tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
