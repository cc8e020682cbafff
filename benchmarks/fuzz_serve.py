"""Requests of every kind against a running server: every connection has to be answered.

    python benchmarks/fuzz_serve.py --connections 10000

Starts the page's server on the loopback address, around a model that answers at once, in a process
of its own, and sends it whole, cut, mutated and hostile requests and uploads, several clients at a
time. A connection that is refused, reset or closed without an answer counts as dropped; the exit
status is 1 if there is one, if the server wrote a traceback, or if its memory grew by 200 MiB.
"""

import argparse
import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import socket
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.serve import server
from fastfcn_jax.serve.connection import CONTINUE

GROWTH_MIB = 200
CLIENTS = 64
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"


class Model:
    """Sees one class everywhere."""

    info = DatasetInfo("toy", ("sky", "road"), np.eye(2, 3, dtype=np.uint8) * 200)
    pixel = RGB

    def predict(self, image):
        return Prediction(np.zeros(image.shape[:2], np.uint8), np.ones(image.shape[:2], np.float32))


def run_server(port, errors: str) -> None:
    """Tells the port it found, and serves; what it says on standard error goes to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    listener = server.listen("127.0.0.1", 0)
    listener.listen(1024)
    port.send(listener.getsockname()[1])
    server.Server(listener, "127.0.0.1", Model(), protocol="single").run()


def upload(data: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data


def originals() -> list[bytes]:
    """Requests that are right, or wrong in a way of their own."""
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    png, jpeg = (cv2.imencode(suffix, image)[1].tobytes() for suffix in (".png", ".jpg"))
    local = b"Host: localhost\r\n\r\n"
    return [
        b"GET / HTTP/1.1\r\n" + local,
        b"GET /v1/model HTTP/1.0\r\n" + local,
        b"GET /metrics HTTP/1.1\r\n" + local + b"GET /healthz HTTP/1.1\r\n" + local,
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + local,
        upload(png),
        upload(jpeg),
        upload(png[: len(png) // 2]),
        HEAD + b"Content-Length: \xb2\r\n\r\n" + png,
        HEAD + b"Content-Length: 99999999999\r\n\r\n" + png,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]


def mutate(request: bytes, rng: np.random.Generator) -> bytes:
    """The same (one in four), or with one to four damages."""
    changed = bytearray(request)
    for _ in range(rng.integers(1, 5) if rng.random() < 0.75 else 0):
        # Half of them early: most bytes are a picture's.
        at = int(rng.integers(len(changed) if rng.random() < 0.5 else min(120, len(changed))))
        match rng.integers(4):
            case 0:
                changed[at] = int(rng.integers(256))
            case 1:
                del changed[at : at + int(rng.integers(1, 65))]
            case 2:
                changed[at:at] = changed[: int(rng.integers(1, 65))]
            case 3:
                changed[at:at] = bytes(rng.choice([b"\r\n", b"\0", b"9" * 400, b"[", b"\xff"]))
        changed = changed or bytearray(b"\n")
    return bytes(changed)


def ask(address: tuple[str, int], request: bytes) -> str:
    """The status of the answer, or how the connection was dropped."""
    try:
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            reply = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    except OSError as error:
        return type(error).__name__
    while reply.startswith(CONTINUE):
        reply = reply.removeprefix(CONTINUE)
    return reply[9:12].decode() if reply.startswith(b"HTTP/1.1 ") else "no answer"


def resident_mib(process: int) -> int:
    return (
        int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    kinds = itertools.islice(itertools.cycle(originals()), given.connections)
    requests = [mutate(request, rng) for request in kinds]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile() as errors:
        process = multiprocessing.Process(target=run_server, args=(sender, errors.name))
        process.start()
        address = ("127.0.0.1", receiver.recv())
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
            tally = collections.Counter(clients.map(lambda r: ask(address, r), requests[:500]))
            before = resident_mib(process.pid)
            tally += collections.Counter(clients.map(lambda r: ask(address, r), requests[500:]))
        after = resident_mib(process.pid)
        process.terminate()
        process.join()
        told = Path(errors.name).read_text()
    answered = sum(count for status, count in tally.items() if status.isdigit())
    print(f"{answered} of {given.connections} connections answered: {dict(sorted(tally.items()))}")
    faults = told.count("error: while answering")
    print(f"server: {before} MiB after 500 connections, {after} MiB at the end; {faults} faults")
    return 1 if answered < given.connections or faults or after - before > GROWTH_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
