"""Handles one HTTP request: reads it within a time limit, answers with the page or with JSON."""

import io
import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fastfcn_jax.errors import UserError
from fastfcn_jax.serve.answer import answer

PAGE = Path(__file__).parent / "page.html"
MAX_BYTES = 32 << 20
SENDING_SECONDS = 60  # for receiving a whole request, however often a client pauses
TAKING_SECONDS = 60  # for sending a whole reply
CONTENT_SECURITY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'"
)


class Serving(Protocol):
    """What a request handler needs from its server."""

    model: Any  # as `answer` takes it
    about: dict
    busy: threading.Lock

    def is_called(self, name: str) -> bool: ...


class Reply(NamedTuple):
    status: int
    kind: str
    body: bytes


class RefusedError(Exception):
    """A refused request: its HTTP status, and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """GET / returns the page; POST /predict takes an image file and returns JSON."""

    server: Serving
    raw_requestline: bytes  # set by the parent
    default_request_version = "HTTP/1.0"  # HTTP/0.9 replies have no status and no headers

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Incoming(self.connection, SENDING_SECONDS))

    def parse_request(self) -> bool:
        """Refuses other host names: another site could point its own name at this machine."""
        if not str(self.raw_requestline, "iso-8859-1").split():  # the parent would not reply
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(HTTPStatus.BAD_REQUEST, "the request is an empty line")
            return False
        if not super().parse_request():
            return False
        if not self.server.is_called(_host_name(self.headers.get("Host", ""))):
            self.send_error(HTTPStatus.FORBIDDEN, "this server is for this machine only")
            return False
        return True

    def do_GET(self) -> None:
        self._reply(self._page)

    def do_POST(self) -> None:
        self._reply(self._predict)

    def _page(self) -> Reply:
        if self.path == "/":
            return Reply(200, "text/html; charset=utf-8", PAGE.read_bytes())
        if self.path == "/model":
            return _json(200, self.server.about)
        raise RefusedError(404, "no such page")

    def _predict(self) -> Reply:
        if self.path != "/predict":
            raise RefusedError(404, "no such page")
        # A page of another site could make its visitors post here; only our page can set this.
        if self.headers.get("X-Requested-With") != "fastfcn":
            raise RefusedError(403, "use the page of this server")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,15}", length):
            raise RefusedError(411, "the request does not say how long the file is")
        if not 0 < int(length) <= MAX_BYTES:
            raise RefusedError(413, f"the file is empty or over {MAX_BYTES >> 20} MiB")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise RefusedError(400, "the upload is incomplete")
        with self.server.busy:  # one at a time: parallel requests would not be faster
            return _json(200, answer(self.server.model, data))

    def _reply(self, make: Callable[[], Reply]) -> None:
        """Sends what `make` returns, or the reason why it failed."""
        try:
            reply = make()
        except RefusedError as refusal:
            reply = _error(refusal.status, str(refusal))
        except UserError as error:
            reply = _error(422, str(error))
        except TimeoutError:
            reply = _error(408, f"the upload took longer than {SENDING_SECONDS} seconds")
        except ConnectionError:
            raise  # the client has left
        except Exception:
            print(f"error: while answering {self.command} {self.path!r:.200}:", file=sys.stderr)
            traceback.print_exc()
            reply = _error(500, "the server failed on this request; its terminal shows why")
        self._send(reply)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Replies to requests that the standard library's parser refuses."""
        self._send(_error(code, message or HTTPStatus(code).phrase))

    def _send(self, reply: Reply) -> None:
        self.close_connection = True
        self.connection.settimeout(TAKING_SECONDS)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def log_message(self, format: str, *arguments) -> None:
        """Keeps the terminal quiet."""


class _Incoming(io.RawIOBase):
    """A client's data with one time limit: a limit per read would let it trickle in for ever."""

    def __init__(self, connection: socket.socket, seconds: float):
        self._connection = connection
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def _json(status: int, content: dict) -> Reply:
    return Reply(status, "application/json", json.dumps(content).encode())


def _error(status: int, sentence: str) -> Reply:
    return _json(status, {"error": sentence})


def _host_name(header: str) -> str:
    """The name in a Host header without its port; "" if it is missing or invalid."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", header.strip().lower())
    return found[1].strip("[]") if found else ""
