"""Files behind addresses such as s3://bucket/a.jpg, read through fsspec (extra `remote`)."""

import functools
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line

_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

T = TypeVar("T")


def is_address(words: str) -> bool:
    """Whether this is an address and no path: `s3://…`, `gs://…`, `memory://…`."""
    return _FORM.match(words) is not None


def local(words: str) -> str:
    """The path behind a `file://` address; anything else as it is."""
    return words.removeprefix("file://")


def filesystem(address: str) -> Any:
    """The file system of an address (fsspec).

    Raises:
      UserError: fsspec, or what it needs for this kind of address, is missing.
    """
    kind, rest = address.split("://", 1)
    return _filesystem(f"{kind}://{rest.split('/', 1)[0]}")


@functools.lru_cache(maxsize=64)
def _filesystem(root: str) -> Any:
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(root)[0]
    except ImportError as error:
        raise UserError(
            f'{root}: reading it needs a package: pip install "fastfcn-jax[remote]" '
            f"({first_line(error)})."
        ) from error
    except Exception as error:  # an unknown kind; and each file system has errors of its own
        raise _unreadable(root, error) from error


def place(address: str) -> str:
    """The path of an address within its file system."""
    return filesystem(address)._strip_protocol(address)


def beside(address: str, path: str) -> str:
    """The address of a path in the file system of another address."""
    return filesystem(address).unstrip_protocol(path)


def read(address: str) -> bytes:
    """The bytes of a file; UserError if it cannot be read."""
    return _asked(address, lambda files, path: files.cat_file(path))


def copy(address: str, target: Path) -> None:
    """Copies a file here; UserError if it cannot be read."""
    _asked(address, lambda files, path: files.get_file(path, str(target)))


def below(address: str) -> dict[str, dict[str, Any]]:
    """All files below an address: their paths, and what is known about each, such as its `size`."""
    return _asked(address, lambda files, path: files.find(path, detail=True))


def is_folder(address: str) -> bool:
    """Whether files lie below an address."""
    return _asked(address, lambda files, path: files.isdir(path))


def is_file(address: str) -> bool:
    return _asked(address, lambda files, path: files.isfile(path))


def matches(pattern: str) -> list[str]:
    """The paths of the files that match an address with wildcards, sorted folder by folder.

    Names that begin with a dot are left out, as a shell does.
    """
    found = _asked(pattern, lambda files, path: files.glob(path, detail=True))
    files = [path for path, about in found.items() if about["type"] == "file"]
    paths = [path for path in files if not posixpath.basename(path).startswith(".")]
    return sorted(paths, key=posixpath.split)


def walk(address: str) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """Each folder below an address with the sorted names of its files; hidden ones are left out.

    Holds one folder in memory. Raises UserError if a folder cannot be listed.
    """
    files = filesystem(address)
    waiting = [place(address)]
    while waiting:
        here = waiting.pop()
        try:
            entries = files.ls(here, detail=True)
        except Exception as error:
            raise _unreadable(beside(address, here), error) from error
        named = {posixpath.basename(e["name"].rstrip("/")): e["type"] for e in entries}
        shown = sorted(name for name in named if name and not name.startswith("."))
        yield PurePosixPath(here), [name for name in shown if named[name] == "file"]
        below = [name for name in shown if named[name] == "directory"]
        waiting += [posixpath.join(here, name) for name in reversed(below)]


def _asked(address: str, question: Callable[[Any, str], T]) -> T:
    try:
        return question(filesystem(address), place(address))
    except Exception as error:
        raise _unreadable(address, error) from error


def _unreadable(address: str, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    said = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
    return UserError(f"{address}: cannot be read ({said}).")
