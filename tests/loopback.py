"""An HTTP server on the loopback address that can be told to misbehave."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `files` by path.

    Attributes:
      files: content by path ("/a.pth").
      etag: the ETag header; "": none.
      breaks: for each of the next responses, the number of bytes before the connection is closed.
      stalls: the same, but the connection stays open without sending more.
      lengths: the Content-Length headers of the next responses.
      statuses: the status codes of the next responses, sent instead of a file.
      redirects: addresses by path.
      ranges: whether to honour `Range` headers.
      asked: (path, Range) of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.etag = '"one"'
        self.breaks: list[int] = []
        self.stalls: list[int] = []
        self.lengths: list[int] = []
        self.statuses: list[int] = []
        self.redirects: dict[str, str] = {}
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """Ignores clients that disconnect during a response."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, path = self.server, self.path
        server.asked.append((path, self.headers["Range"]))
        if path in server.redirects:
            return self._answer(302, {"Location": server.redirects[path]})
        if server.statuses:
            return self._answer(server.statuses.pop(0), {})
        if path not in server.files:
            return self._answer(404, {})
        content = server.files[path]
        start = self._start(len(content))
        status, headers = 200, {"ETag": server.etag} if server.etag else {}
        if start is not None:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        length = server.lengths.pop(0) if server.lengths else len(content)
        body = content[: server.breaks.pop(0)] if server.breaks else content
        stalled = server.stalls.pop(0) if server.stalls else None
        self._answer(status, {**headers, "Content-Length": str(length)}, body[:stalled])
        if stalled is not None:
            self.wfile.flush()
            server.closing.wait(20)

    def _start(self, size: int) -> int | None:
        """The first byte of the requested range, if a part was requested."""
        asked = self.headers["Range"]
        condition = self.headers["If-Range"]
        if asked is None or not self.server.ranges or (condition and condition != self.server.etag):
            return None
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        return start if start < size else None

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *arguments) -> None:
        """Keeps the test's output quiet."""


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def unused_address() -> str:
    """A loopback address where no server listens."""
    with serving() as server:
        address = server.address
    return address
