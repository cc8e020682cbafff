"""A server around a model that needs no compilation, and requests to it."""

import contextlib
import http.client
import json
import socket
import threading
import time

import numpy as np

from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.serve import server
from fastfcn_jax.serve.connection import CONTINUE

INFO = DatasetInfo("toy", ("sky", "<road>", "car"), np.eye(3, dtype=np.uint8) * 200)


class Halves:
    """A model that sees sky above and road below, everywhere."""

    info = INFO
    pixel = RGB

    def predict(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[len(labels) // 2 :] = 1
        return Prediction(labels, np.full(labels.shape, 0.75, np.float32))


def make(model=None, host="127.0.0.1", **options):
    listener = server.listen(host, 0)
    return server.Server(listener, host, model or Halves(), protocol="single", **options)


@contextlib.contextmanager
def running(made=None):
    """Runs a server in a thread; yields (host, port)."""
    made = made or make()
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    while not made._uvicorn.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield made.address
    finally:
        made.stop()
        thread.join(20)
        assert not thread.is_alive()


def ask(address, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def post(address, data, path="/v1/predict", **headers):
    """Status and JSON of the reply to an upload."""
    reply, content = ask(address, "POST", path, data, **headers)
    return reply.status, json.loads(content)


def raw(address, request: bytes) -> tuple[int, bytes]:
    """Status and body of the reply to these bytes, after which the client sends nothing."""
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    while reply.startswith(CONTINUE):
        reply = reply.removeprefix(CONTINUE)
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
