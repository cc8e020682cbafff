"""Serves a local web page that shows label map, overlay and legend of a photograph."""

import contextlib
import ipaddress
import socket
import socketserver
import sys
import threading
import time
import traceback
from http.server import ThreadingHTTPServer
from pathlib import Path

from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line
from fastfcn_jax.serve.handler import Handler

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
MAX_CONNECTIONS = 32  # handled at a time, since each may hold an upload in memory
WAITING_CONNECTIONS = 1024
LINGER_SECONDS = 2.0


class Server(ThreadingHTTPServer):
    """Serves one model. Port 0 means any free port."""

    daemon_threads = True
    request_queue_size = WAITING_CONNECTIONS

    def __init__(self, address: tuple[str, int], model):
        self.model = model
        self.host = address[0]
        self.is_local = _is_loopback(self.host)
        self.busy = threading.Lock()
        self.about = {
            "dataset": model.info.name,
            "classes": list(model.info.class_names),
            "protocol": model.predictor.protocol.name,
        }
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        super().__init__(address, Handler)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}"

    def is_called(self, name: str) -> bool:
        """Whether a request with this host name is meant for this server."""
        return not self.is_local or name in (*LOCAL_NAMES, self.host.lower())

    def server_bind(self) -> None:
        """Skips the parent's look-up of the full host name, which needs the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.socket.getsockname()[1]

    def process_request(self, request, client_address) -> None:
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._places.release()
            raise

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def shutdown_request(self, request) -> None:
        """Reads what the client still sends: closing earlier would discard the reply."""
        assert isinstance(request, socket.socket)
        end = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                request.settimeout(left)
                if not request.recv(1 << 16):
                    break
        self.close_request(request)

    def handle_error(self, request, client_address) -> None:
        """Prints errors of a request, unless the client has left."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            print("error: while answering a request:", file=sys.stderr)
            traceback.print_exc()


def listen(model, host: str, port: int) -> Server:
    """Creates a server; `serve_forever` starts it.

    Raises:
      UserError: it cannot listen on this address.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: ports go from 0 to 65535.")
    try:
        return Server((host, port), model)
    except (OSError, UnicodeError) as error:  # UnicodeError: an impossible host name
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}).") from error


def _is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def serve(
    checkpoint: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    protocol: str | None = None,
) -> None:
    """Serves the page for one model until Ctrl-C.

    Args:
      host: address to listen on; the default can be reached from this machine only.
      port: 0: any free port.

    Raises:
      UserError: the folder has no model, or the server cannot listen on the address.
    """
    from fastfcn_jax import api, runtime

    runtime.cache_compilations()
    model = api.load(checkpoint, protocol=protocol)
    server = listen(model, host, port)
    print(f"{server.url}  (Ctrl-C ends it)", flush=True)
    if not server.is_local:
        print(
            f"warning: --host {host} lets every machine that reaches this one use the page, under "
            "whatever name; without --host it is for this machine alone.",
            file=sys.stderr,
            flush=True,
        )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
