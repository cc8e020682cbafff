"""Result files that are either complete or absent."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; what was written there becomes `path` at the end.

    The temporary name has the suffix of `path`, but not its length: a name may be as long as the
    file system allows.

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
        with contextlib.suppress(OSError):  # what failed above is the news
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
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def unwritable(path: Path, error: Exception) -> Exception:
    """A UserError where the disk is to blame, the error itself where the program is.

    Libraries that write by themselves report a full disk by errors of their own kinds.
    """
    text = str(error)
    if isinstance(error, UserError):
        return error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in text for words in ("No space left", "ENOSPC", "Disk quota")):
        return UserError(f"{path}: no space left on the disk; free some and run again.")
    if isinstance(error, OSError):
        return UserError(f"{path} cannot be written: {error.strerror or first_line(error)}.")
    if "PERMISSION_DENIED" in text or "Permission denied" in text:
        return UserError(f"{path} cannot be written: {first_line(error)}.")
    return error


def first_line(error: Exception) -> str:
    """What an exception says first, cut to a readable length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_image(path: Path, image: UInt8[np.ndarray, "..."]) -> None:
    """Writes a grey or RGB picture in the format that the suffix names."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encodes, encoded = cv2.imencode(path.suffix, image)
    if not encodes:
        raise UserError(f"{path}: {path.suffix} cannot hold a picture of shape {image.shape}.")
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary:
        np.save(temporary, array)
