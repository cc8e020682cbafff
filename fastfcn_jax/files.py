"""Result files that are either complete or absent, whatever bytes their names are made of."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax import text as text_files
from fastfcn_jax.errors import UserError

MAX_NAME = 200  # bytes; most file systems take 255


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; what was written there becomes `path` at the end.

    The name is short and ASCII with the suffix of `path`, so that it can be written wherever
    `path` can be.
    """
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = path.suffix if path.suffix.isascii() and len(path.suffix) < 16 else ""
    temporary = path.with_name(f".{os.getpid()}-{digest}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # which would hide why the writing failed
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def failing_in_words(path: Path, remedy: str) -> Iterator[None]:
    """Turns the error of a disk that is full or may not be written into a `UserError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "shorten it" if error.errno == errno.ENAMETOOLONG else remedy
        name = text_files.shown(path)
        raise UserError(f"{name}: cannot be written ({reason}); {remedy}.") from error


def name_of(sample_id: str) -> str:
    """A sample's id as the name of one file, short enough with any suffix, in plain Unicode."""
    name = text_files.shown(sample_id).replace("/", "_")
    if len(name.encode()) <= MAX_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(sample_id)).hexdigest()[:16]
    return f"{name.encode()[: MAX_NAME - 17].decode(errors='ignore')}-{digest}"


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


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


def write_text(path: Path, text: str) -> None:
    """In UTF-8; bytes of file names that are none are written as `\\xdf`."""
    write_bytes(path, text_files.shown(text).encode())


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_image(path: Path, image: UInt8[np.ndarray, "..."]) -> None:
    """Writes a grey or RGB picture in the format that the suffix names."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Not imwrite, which ends the process at a name that is no UTF-8.
    done, encoded = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f"{path} could not be encoded")
    write_bytes(path, encoded.tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
