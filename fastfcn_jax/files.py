"""Writes result files atomically: each is complete or absent, even if its name is not UTF-8."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import tempfile
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
def replacing(path: Path, *, beside: str = "") -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` at the end.

    The temporary name is short and ASCII with the suffix of `path`, so that it can be written
    wherever `path` can be.

    Args:
      beside: the suffix of a second file with the same stem, which is renamed first.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    temporary = _temporary(path)
    second = temporary.with_suffix(beside) if beside else None
    try:
        yield temporary
        if second is not None:
            os.replace(second, path.with_suffix(beside))
        os.replace(temporary, path)
    except Exception as error:
        explained = unwritable(path, error)
        if explained is error:
            raise
        raise explained from error
    finally:
        with contextlib.suppress(OSError):  # an error here would hide why the write failed
            temporary.unlink(missing_ok=True)
            if second is not None:
                second.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """Checks, before any work is done, that `path` is new and can be written.

    Raises:
      UserError: `path` exists already, or its folder cannot be written.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; create it or give another --output.")
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
    """Returns a UserError if the disk caused `error`, else `error` itself.

    It looks at messages too, because libraries report a full disk with exceptions of their own.
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
    """The first line of an exception's message, truncated to 200 characters."""
    text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def name_of(sample_id: str) -> str:
    """Turns a sample's id into a valid Unicode file name, short enough to append a suffix."""
    name = text_files.shown(sample_id).replace("/", "_")
    if len(name.encode()) <= MAX_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(sample_id)).hexdigest()[:16]
    return f"{name.encode()[: MAX_NAME - 17].decode(errors='ignore')}-{digest}"


def make_folder(output: Path) -> Path:
    """Creates the folder given as --output unless it exists, and checks that it can be written.

    Raises:
      UserError: a file has that name, or the folder cannot be created or written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise UserError(
            f"--output {output}: the folder cannot be written ({error.strerror}); give another."
        ) from error
    return output


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/fastfcn_jax` (`~/.cache/...`); it may not exist yet."""
    return cache_home() / "fastfcn_jax"


def cache_home() -> Path:
    """`$XDG_CACHE_HOME` (`~/.cache`), which other programs use as well."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def make_cached(folder: Path) -> None:
    """Creates a folder in the cache.

    Raises:
      UserError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be created ({error.strerror}); set XDG_CACHE_HOME to a folder that "
            "can be written."
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8; bytes of file names that are not UTF-8 become `\\xdf`.

    After a power loss the file has either its old or its new content.
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
    """Writes a grey or RGB image in the format given by the suffix."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # cv2.imwrite would abort the process at a file name that is not UTF-8.
    encodes, encoded = cv2.imencode(path.suffix, image)
    if not encodes:
        raise UserError(f"{path}: {path.suffix} cannot hold a picture of shape {image.shape}.")
    write_bytes(path, encoded.tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
