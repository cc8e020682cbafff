"""Downloads one file: resumes interrupted transfers, and keeps the file only if verified."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import math
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastfcn_jax.errors import UserError
from fastfcn_jax.terminal.progress import track

ATTEMPTS = 5
STALL_SECONDS = 30.0  # without a byte, after which the connection is closed
FIRST_PAUSE = 1.0  # seconds before the second attempt; each further pause is twice as long
_CHUNK = 1 << 20
_WORTH_ANOTHER = {408, 425, 429, 500, 502, 503, 504}


class _InterruptedError(Exception):
    """The transfer ended early; the bytes received are kept."""


class _UnreachableError(Exception):
    """The address gives no file, and retrying would not help."""


class _WrongError(Exception):
    """The received bytes are not the file."""


def download(address: str, path: Path, *, checksum: str = "", remedy: str = "") -> None:
    """Downloads `address` to `path`, unless the file exists already.

    A transfer that is interrupted or stalls is resumed, also by a later call. Other processes that
    want the same file wait. Proxies come from the environment (`https_proxy`, `no_proxy`).

    Args:
      checksum: "sha256:" or "sha1:" and the first digits; "": only the length is checked.
      remedy: what to do without a network, for the message.

    Raises:
      UserError: the address gives no file, or one with another checksum. `path` does not exist.
    """
    if not address.startswith(("https://", "http://")):
        raise UserError(f"{address}: is not the address of a file; it has to start with https://.")
    try:
        with locked(path):
            if not path.exists():
                _download(address, path, checksum)
    except (_UnreachableError, _InterruptedError) as error:
        raise UserError(f"{address}: {error}; {remedy or 'try again later'}.") from error
    except _WrongError as error:
        raise UserError(f"{address}: {error}; nothing is kept, try again later.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time create `path`; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process to create {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(file: BinaryIO, algorithm: str) -> str:
    """The checksum of an open file, in hexadecimal digits."""
    return hashlib.file_digest(file, algorithm).hexdigest()  # pyright: ignore[reportArgumentType]


def verify(path: Path, checksum: str) -> str:
    """What is wrong with a file that should have this checksum; "" if it has."""
    if not checksum:
        return ""
    algorithm, _, beginning = checksum.partition(":")
    with open(path, "rb") as file:
        found = digest(file, algorithm)
    if found.startswith(beginning):
        return ""
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
    page = ", it is a web page" if start.startswith((b"<!doctype", b"<html")) else ""
    return f"its {algorithm} begins with {found[: len(beginning)]} and not with {beginning}{page}"


def _download(address: str, path: Path, checksum: str) -> None:
    part = path.with_name(f".{path.name}.part")
    origin = path.with_name(f".{path.name}.from")  # which remote file `part` belongs to
    for attempt in range(ATTEMPTS):
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _transfer(address, part, origin, checksum)
        except _InterruptedError as error:
            if attempt + 1 == ATTEMPTS:
                raise
            print(f"{error}; trying again", file=sys.stderr, flush=True)
            time.sleep(FIRST_PAUSE * 2**attempt)
            continue
        wrong = verify(part, checksum)
        origin.unlink(missing_ok=True)
        if not wrong:
            os.replace(part, path)
            return
        part.unlink()
        if not resumed:  # a resumed part may begin with another file: retry from the start
            raise _WrongError(f"what arrived is another file: {wrong}")
    raise _WrongError("what arrived was another file each time")


def _transfer(address: str, part: Path, origin: Path, checksum: str) -> None:
    """Receives the bytes that `part` lacks."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "fastfcn_jax", "Accept-Encoding": "identity"}
    known = _read_origin(origin, address)
    if have and (known or checksum):
        headers["Range"] = f"bytes={have}-"
        if known:
            headers["If-Range"] = known
    with _opened(urllib.request.Request(address, headers=headers), part) as response:
        total = _length(response, have)
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0
        origin.write_text(json.dumps([address, _validator(response)]))
        left = math.ceil((total - have) / _CHUNK) if total is not None else 0
        with open(part, "ab" if have else "wb") as file:
            name = part.name.removeprefix(".").removesuffix(".part")
            for chunk in track(_chunks(response), left, f"{name}, MiB"):
                file.write(chunk)
    arrived = part.stat().st_size
    if total is not None and arrived != total:
        if arrived > total:
            part.unlink()
        raise _InterruptedError(f"{arrived} of {total} bytes arrived")


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(f"the connection broke off ({_reason(error)})") from error


def _length(response: Any, have: int) -> int | None:
    """Size of the whole file, if the server says; checks that the range starts at `have`."""
    if response.status != http.client.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    place, _, total = rest.partition("/")
    if unit != "bytes" or place.partition("-")[0] != str(have):
        raise _UnreachableError("the server sends a different part of the file than requested")
    return int(total) if total.isdigit() else None


def _validator(response: Any) -> str:
    """Identifies the remote file's version, for `If-Range`."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _read_origin(origin: Path, address: str) -> str:
    """The validator that `_transfer` stored; "" if `part` came from another address."""
    try:
        noted, validator = json.loads(origin.read_text())
    except (OSError, ValueError):
        return ""
    return validator if noted == address else ""


def _opened(request: urllib.request.Request, part: Path) -> Any:
    """The server's response; the caller closes it."""
    opener = urllib.request.build_opener(_Redirects)
    try:
        return opener.open(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server's file is shorter than the part here") from error
        text = " ".join(f"the server answers {error.code} {error.reason}".split())
        if error.code in _WORTH_ANOTHER:
            raise _InterruptedError(text) from error
        raise _UnreachableError(text) from error
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        text = f"cannot be reached ({_reason(cause)})"
        passing = isinstance(cause, (TimeoutError, ConnectionResetError, http.client.HTTPException))
        raise (_InterruptedError if passing else _UnreachableError)(text) from error


def _reason(cause: object) -> str:
    if isinstance(cause, TimeoutError):
        return f"nothing came for {STALL_SECONDS:g} s"
    if isinstance(cause, socket.gaierror):
        return "its name is not found: there is no network, or a proxy has to be set"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        allowed = ("https://",) if req.type == "https" else ("https://", "http://")
        if not newurl.startswith(allowed):
            raise _UnreachableError(f"the server redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
