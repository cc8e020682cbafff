"""Listens on an address, loads a model and serves it until a signal ends the program."""

import asyncio
import contextlib
import importlib
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
WAITING_CONNECTIONS = 2048  # that the system holds until they are accepted
TRIED_SIZE = (64, 64)  # of an exported file that takes any
ENDING_SECONDS = 60  # for requests that have begun when the server is told to stop


class Server:
    """Serves one model at an open socket.

    Args:
      listener: as `listen` returns it; closed by `run`.
      protocol: how the model tests images, in a word or two.
      places: how many requests may wait or be answered; None: 256.
    """

    def __init__(self, listener: socket.socket, host: str, model, *, protocol: str, places=None):
        import uvicorn

        from fastfcn_jax.serve import application, connection, desk, guard, measures

        self.host = host
        self.is_local = _is_loopback(host)
        self._listener = listener
        self.address = listener.getsockname()[:2]
        measured = measures.Measures()
        self.application = application.Application(
            model, protocol=protocol, measures=measured, places=places or desk.MAX_REQUESTS
        )
        app = guard.Guard(self.application.api, is_called=self.is_called, measures=measured)
        config = uvicorn.Config(
            app,
            http=connection.Connection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            backlog=WAITING_CONNECTIONS,
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=ENDING_SECONDS,
        )
        self._uvicorn = uvicorn.Server(config)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.address[1]}"

    def is_called(self, name: str) -> bool:
        """Whether a request with this host name is meant for this server."""
        return not self.is_local or name in (*LOCAL_NAMES, self.host.lower())

    def run(self) -> None:
        """Serves until SIGINT, SIGTERM or `stop`, then answers the requests that have begun."""
        try:
            if asyncio._get_running_loop() is None:
                with self._signals_end_it():
                    self._uvicorn.run(sockets=[self._listener])
            else:
                self._run_beside()
        finally:
            self._listener.close()
            self.application.desk.close()

    def _run_beside(self) -> None:
        """Runs in a thread: a notebook's cell is inside an event loop, which allows no other."""
        thread = threading.Thread(target=self._uvicorn.run, args=([self._listener],))
        thread.start()
        try:
            thread.join()
        except KeyboardInterrupt:  # the notebook's stop button
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Ends `run`; may be called from another thread."""
        self._uvicorn.should_exit = True

    @contextlib.contextmanager
    def _signals_end_it(self) -> Iterator[None]:
        """uvicorn raises the signal that ended it once more: the program would not end with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: self.stop()) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket at this address; connections are accepted once a server runs.

    Raises:
      UserError: it cannot listen there.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: ports go from 0 to 65535.")
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: an impossible host name
        opened.close()
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}).") from error
    return opened


def _is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _File:
    """An exported file that predicts like `fastfcn_jax.api.Model`."""

    def __init__(self, exported):
        self._exported = exported
        self.info, self.pixel = exported.info, exported.pixel

    def predict(self, image):
        return self._exported.predict(image, confidence=True)


def _load(checkpoint: Path | None, model: Path | None, protocol: str | None) -> tuple[Any, str]:
    """The model, and how it tests images."""
    import numpy as np

    from fastfcn_jax.predict import chosen_model

    if model is None:
        loaded: Any = chosen_model.load_model(checkpoint, None, protocol=protocol, batch_size=1)
        return loaded, loaded.predictor.protocol.name
    exported: Any = chosen_model.load_model(checkpoint, model, protocol=protocol)
    height, width = exported.size or TRIED_SIZE
    # Compiles, and refuses a broken file before the first visitor comes.
    exported.run(np.zeros((1, height, width, exported.pixel.channels), exported.pixel.dtype))
    size = "any size" if exported.size is None else f"{height}x{width}"
    return _File(exported), f"exported, {size}, {exported.precision}"


def serve(
    checkpoint: str | Path | None = None,
    *,
    model: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    protocol: str | None = None,
    queue: int | None = None,
) -> None:
    """Serves a page and an HTTP interface for one model until Ctrl-C or SIGTERM.

    Args:
      checkpoint: a checkpoint folder or a published name; this or `model`.
      model: a file that `fastfcn export` wrote.
      host: address to listen on; the default can be reached from this machine only.
      port: 0: any free port.
      protocol: how to test; None: the model's own.
      queue: how many requests may wait or be answered, others get status 503; None: 256.

    Raises:
      UserError: there is no such model, the address cannot be listened on, or the packages of the
        extra `serve` are missing.
    """
    _check_packages()
    with listen(host, port) as listener:  # a taken port is noticed before the model is loaded
        checkpoint, model = (None if name is None else Path(name) for name in (checkpoint, model))
        loaded, tested = _load(checkpoint, model, protocol)
        server = Server(listener, host, loaded, protocol=tested, places=queue)
        listener.listen(WAITING_CONNECTIONS)  # who calls as soon as it is printed has to wait only
        print(f"{server.url}  (Ctrl-C ends it; {server.url}/docs: for programs)", flush=True)
        if not server.is_local:
            print(
                f"warning: --host {host} lets every machine that reaches this one use the page, "
                "under whatever name; without --host it is for this machine alone.",
                file=sys.stderr,
                flush=True,
            )
        server.run()


def _check_packages() -> None:
    try:
        for name in ("fastapi", "uvicorn", "prometheus_client"):
            importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"fastfcn serve needs the package {error.name}: pip install 'fastfcn-jax[serve]'."
        ) from error
