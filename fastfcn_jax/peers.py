"""Ends all processes of a job within seconds when one of them has died, hangs or has failed.

Left to themselves the others would wait in a collective operation until JAX's coordination service
aborts them, minutes later and without a word of what happened.
"""

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax

from fastfcn_jax import runtime
from fastfcn_jax.errors import UserError
from fastfcn_jax.relay import Relay

LOST = 75  # exit status (EX_TEMPFAIL of sysexits.h): the same command again goes on
BEAT = 2.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one after which a process counts as lost
GRACE = 5.0  # seconds in which the processes that fail by the same error do so
CONNECT = 30.0  # seconds to reach process 0
INTERRUPTED = "interrupted"  # in place of a message after Ctrl-C
COLLECTIVES = ("Gloo", "NCCL")  # in the messages of collective operations that failed

_guard: "_Guard | None" = None  # of the block that runs; a process watches one job


@contextlib.contextmanager
def watch(advice: str, relay: Relay | None) -> Iterator[None]:
    """While the block runs, ends this process soon after another process of the job has ended.

    All processes must enter. A process that died, or gave no sign of life for `SILENCE` seconds,
    ends the others with status 75 and a sentence that names it; one that ended by an
    error ends them with its message and status 2. Does nothing in a job of one process.

    Args:
      advice: second half of the sentence: how to go on.
      relay: what `runtime.join_processes` returned.
    """
    if jax.process_count() == 1:
        yield
        return
    global _guard
    guard = _guard = _Guard(advice, relay)
    try:
        yield
    except BaseException as error:
        everywhere = guard.all_fail(error)
        if isinstance(error, UserError):
            if everywhere:
                raise
            _end(2, f"error: {error}")
        # Leaving in the usual way, JAX would wait for the other processes, and they for this one.
        if isinstance(error, KeyboardInterrupt):
            _end(130, INTERRUPTED)
        _end(1, traceback.format_exc())
    finally:
        _guard = None
    guard.leave()


def fails_everywhere(error: BaseException) -> bool:
    """Whether every process of the job fails, so that what they do together can still be done.

    Tells the others that this one does; `GRACE` seconds later they end if they do not fail as well.
    """
    return _guard is None or _guard.all_fail(error)


def _end(status: int, text: str) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace") + b"\n")
    os._exit(status)


class _Link:
    """The connection to one other process: lines of text, and when the last one came."""

    def __init__(self, connection: socket.socket, process: int, host: str):
        self.connection, self.process, self.host = connection, process, host
        self.heard = time.monotonic()
        self._rest = b""

    def send(self, line: str) -> None:
        with contextlib.suppress(OSError):  # `read` notices a closed connection
            self.connection.sendall(line.encode(errors="backslashreplace") + b"\n")

    def read(self) -> list[str] | None:
        """The lines that have arrived; None if the other side has closed the connection."""
        try:
            data = self.connection.recv(4096)
        except OSError:
            data = b""
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


class _Guard:
    """The connections of one process, and the thread that serves them.

    Process 0 is connected to all others and passes on what it learns; they are connected to it
    alone. The lines are "beat", "bye" before leaving, "failed PROCESS MESSAGE" and "lost SENTENCE".
    """

    def __init__(self, advice: str, relay: Relay | None):
        self.advice, self.relay = advice, relay
        self.leaving = threading.Event()
        self.failed: dict[int, str] = {}  # messages of the other processes
        self.failed_at = 0.0
        self.links = _connect(relay)
        self.selector = selectors.DefaultSelector()
        if relay is not None:
            relay.holds = bool(self.links)
        for link in self.links:
            self.selector.register(link.connection, selectors.EVENT_READ, link)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def leave(self) -> None:
        self.leaving.set()
        if self.relay is not None:
            self.relay.holds = False
        self._tell("bye")

    def all_fail(self, error: BaseException) -> bool:
        """Tells the others that this process fails; returns whether all of them do, too."""
        if any(library in str(error) for library in COLLECTIVES):
            # A collective operation fails at once when a partner dies. The thread learns who that
            # was, and ends this process.
            self.thread.join(SILENCE + GRACE)
        if not self.leaving.is_set():
            self.leaving.set()
            text = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, KeyboardInterrupt):
                text = INTERRUPTED
            self._tell(f"failed {jax.process_index()} {text}")
        end = time.monotonic() + GRACE + 1  # the others end before they miss this one
        while len(self.failed) < jax.process_count() - 1 and time.monotonic() < end:
            time.sleep(0.05)
        return len(self.failed) == jax.process_count() - 1

    def _tell(self, line: str, source: _Link | None = None) -> None:
        for link in tuple(self.links):
            if link is not source:
                link.send(line)

    def _serve(self) -> None:
        before = beaten = time.monotonic()
        while self.links:
            ready = self.selector.select(BEAT / 4)
            now = time.monotonic()
            if now - before > SILENCE / 2:  # this process was stopped itself: first it listens
                for link in self.links:
                    link.heard = now
            before = now
            for key, _ in ready:
                self._receive(key.data)
            if now - beaten >= BEAT:
                beaten = now
                self._tell("beat")
            self._judge(now)

    def _receive(self, link: _Link) -> None:
        lines = link.read()
        if lines is None:
            self._drop(link)
            self._lose(link, "has ended")
        for line in lines or ():
            kind, _, text = line.partition(" ")
            if kind == "bye":
                self._drop(link)
            elif kind == "failed":
                process, _, message = text.partition(" ")
                self.failed[int(process)] = message
                self.failed_at = self.failed_at or time.monotonic()
                self._tell(line, source=link)
            elif kind == "lost" and not self.leaving.is_set():
                _end(LOST, f"error: {text}; {self.advice}")

    def _judge(self, now: float) -> None:
        for link in tuple(self.links):
            if now - link.heard > SILENCE:
                self._drop(link)
                self._lose(link, f"has given no sign of life for {SILENCE:.0f} s")
        if self.failed and now - self.failed_at > GRACE and not self.leaving.is_set():
            process, message = next(iter(self.failed.items()))
            if message == INTERRUPTED:
                _end(130, f"process {process} was interrupted")
            _end(2, f"error: process {process} has ended: {message}")

    def _drop(self, link: _Link) -> None:
        self.selector.unregister(link.connection)
        self.links.remove(link)

    def _lose(self, link: _Link, how: str) -> None:
        if self.leaving.is_set() or self.failed:  # who fails closes its connection, too
            return
        text = f"process {link.process} on {link.host} {how}"
        self._tell(f"lost {text}")
        time.sleep(1)  # a process that ends at once may take back what it has just sent
        _end(LOST, f"error: {text}; {self.advice}")


def _connect(relay: Relay | None) -> list[_Link]:
    """This process's connections, none where the processes cannot reach process 0."""
    server = None
    if jax.process_index() == 0:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
    port = server.getsockname()[1] if server else 0
    facts = f"{port} {secrets.token_hex(16)} {socket.gethostname()}"
    told = [text.split(" ") for text in runtime.gather(facts)]
    port, token, host = told[0]
    try:
        if server is not None:
            links, problem = _accept(server, token, [name for _, _, name in told]), ""
        else:
            assert relay is not None
            links, problem = [_reach(relay.remote[0], int(port), token, host)], ""
    except OSError as error:
        links, problem = [], f"process {jax.process_index()}: {error}"
    if problems := [text for text in runtime.gather(problem) if text]:
        if server is not None:
            print(
                f"process 0 cannot be reached on port {port} ({problems[-1]}): the loss of a "
                "process will be noticed by JAX alone, after minutes"
            )
        return []
    return links


def _reach(address: str, port: int, token: str, host: str) -> _Link:
    connection = socket.create_connection((address, port), timeout=CONNECT)
    connection.settimeout(None)
    connection.sendall(f"{token} {jax.process_index()}\n".encode())
    return _Link(connection, 0, host)


def _accept(server: socket.socket, token: str, hosts: list[str]) -> list[_Link]:
    """Waits until every other process has connected and shown the token."""
    links: dict[int, _Link] = {}
    end = time.monotonic() + CONNECT
    with server:
        while len(links) < jax.process_count() - 1:
            server.settimeout(max(end - time.monotonic(), 0.01))
            connection, _ = server.accept()
            connection.settimeout(1)  # what says nothing at once is none of the processes
            try:
                said = connection.makefile("rb").readline(200)
            except OSError:
                said = b""
            shown, _, process = said.strip().partition(b" ")
            if not secrets.compare_digest(shown, token.encode()):
                connection.close()
                continue
            connection.settimeout(None)
            links[int(process)] = _Link(connection, int(process), hosts[int(process)])
    return list(links.values())
