"""The local page: its replies, its limits, and the page itself in a browser."""

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
import types

import browser
import cv2
import numpy as np
import pytest

from fastfcn_jax import api
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.serve import answer, handler, server

pytestmark = pytest.mark.slow

INFO = DatasetInfo("toy", ("sky", "<road>", "car"), np.eye(3, dtype=np.uint8) * 200)


class Halves:
    """A model that sees sky above and road below, everywhere."""

    info = INFO
    pixel = RGB
    predictor = types.SimpleNamespace(protocol=types.SimpleNamespace(name="single"))

    def predict(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[len(labels) // 2 :] = 1
        return Prediction(labels, np.full(labels.shape, 0.75, np.float32))


@contextlib.contextmanager
def serving(running):
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield running.server_address[:2]
    finally:
        running.shutdown()
        running.server_close()


@pytest.fixture(scope="module")
def address():
    with serving(server.listen(Halves(), "127.0.0.1", 0)) as found:
        yield found


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "a.png"
    cv2.imwrite(str(path), np.full((60, 90, 3), 90, np.uint8))
    return path


def ask(address, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def post(address, data, **headers):
    reply, content = ask(
        address, "POST", "/predict", data, **{"X_Requested_With": "fastfcn", **headers}
    )
    return reply.status, json.loads(content)


def test_an_upload_is_answered_with_maps_and_shares(address, photo):
    status, result = post(address, photo.read_bytes())
    assert status == 200
    assert (result["width"], result["height"]) == (90, 60)
    assert [(c["name"], c["share"]) for c in result["classes"]] == [("sky", 50), ("<road>", 50)]
    labels = cv2.imdecode(
        np.frombuffer(base64.b64decode(result["labels"]), np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert labels.shape == (60, 90)
    assert (labels[30:] == 1).all()


def test_bad_uploads_are_one_sentence(address, photo, monkeypatch):
    assert post(address, b"no picture")[0] == 422
    status, result = post(address, photo.read_bytes()[:60])
    assert status == 422
    assert "cut off" in result["error"] or "damaged" in result["error"]
    monkeypatch.setattr(answer, "MAX_PIXELS", 1000)
    status, result = post(address, photo.read_bytes())
    assert status == 422
    assert "90x60" in result["error"]


def test_limits_and_strangers_are_refused(address, photo, monkeypatch):
    monkeypatch.setattr(handler, "MAX_BYTES", 100)
    assert post(address, b"x" * 101)[0] == 413
    assert post(address, b"x" * 5_000_000)[0] == 413  # read to its end: no reset
    monkeypatch.undo()
    assert post(address, photo.read_bytes(), X_Requested_With="other")[0] == 403
    assert post(address, photo.read_bytes(), Host="evil.example")[0] == 403
    assert ask(address, "GET", "/../../etc/passwd")[0].status == 404
    assert ask(address, "GET", "/")[0].headers["Content-Security-Policy"]


POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: fastfcn\r\n"
STRANGE = [
    (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost: LOCALHOST:80\r\n\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\nHost: evil.example@localhost\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\n\r\n", 403),
    (b"GET /\r\n\r\n", 403),
    (b"\r\n", 400),
    (b"\xa0\r\n", 400),
    (b"\xff\x00\x01\r\n\r\n", 400),
    (b"GET / HTTP/\xb2.\xb2\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 505),
    (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    (b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    (POST + b"Content-Length: \xb2\r\n\r\n", 411),
    (POST + b"Content-Length: -1\r\n\r\n", 411),
    (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 411),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    (POST + b"Content-Length: 9999999999\r\n\r\n", 413),
    (POST + b"Content-Length: 0\r\n\r\n", 413),
    (POST + b"Content-Length: 9\r\n\r\nhalf", 400),
]


def raw(address, request: bytes) -> tuple[int, bytes]:
    """Status and body of the reply to these bytes, after which the client sends nothing."""
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(("request_bytes", "status"), STRANGE)
def test_strange_requests_are_answered(address, capfd, request_bytes, status):
    found, body = raw(address, request_bytes)
    assert found == status
    if status != 200 and not request_bytes.startswith(b"HEAD"):
        assert json.loads(body)["error"]
    assert capfd.readouterr().err == ""


def test_an_internal_error_is_answered_and_printed(address, capfd, photo):
    def fails(self, image):
        raise ZeroDivisionError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Halves, "predict", fails)
        status, result = post(address, photo.read_bytes())
    assert status == 500
    assert result == {"error": "the server failed on this request; its terminal shows why"}
    told = capfd.readouterr().err
    assert told.startswith("error: while answering POST '/predict':")
    assert "ZeroDivisionError: a bug" in told
    assert post(address, photo.read_bytes())[0] == 200


def test_an_upload_that_trickles_is_ended(address, monkeypatch):
    monkeypatch.setattr(handler, "SENDING_SECONDS", 0.5)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(POST + b"Content-Length: 1000000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"x")
            time.sleep(0.05)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                assert b" 408 " in connection.recv(1000)
                return
            connection.setblocking(True)
    pytest.fail("the upload was still taken after 50 seconds")


def test_many_connections_at_once_wait_for_their_turn():
    running = server.listen(Halves(), "127.0.0.1", 0)
    waiting = [socket.create_connection(running.server_address, timeout=5) for _ in range(200)]
    with serving(running):
        for connection in waiting:
            connection.sendall(b"GET /model HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for connection in waiting:
            assert connection.recv(12) == b"HTTP/1.0 200"
            connection.close()


def test_addresses():
    for host, port, reason in (
        ("127.0.0.1", 65536, "ports go from 0 to 65535"),
        ("127.0.0.1", -1, "ports go from 0 to 65535"),
        ("192.0.2.1", 0, "cannot listen there"),
        ("a" * 300, 0, "cannot listen there"),
    ):
        with pytest.raises(UserError, match=reason):
            server.listen(Halves(), host, port)
    with server.listen(Halves(), "0.0.0.0", 0) as everywhere:
        assert not everywhere.is_local
        assert everywhere.is_called("anything.example")
    with server.listen(Halves(), "127.0.0.2", 0) as local:
        assert local.is_local
        assert local.is_called("127.0.0.2")
        assert not local.is_called("anything.example")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_the_other_loopback_address():
    running = server.listen(Halves(), "::1", 0)
    assert running.url == f"http://[::1]:{running.server_port}"
    with serving(running) as address:
        assert raw(address, b"GET /model HTTP/1.1\r\nHost: [::1]\r\n\r\n")[0] == 200
        assert raw(address, b"GET /model HTTP/1.1\r\nHost: evil.example\r\n\r\n")[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_serving_everybody_is_warned_of(monkeypatch, capsys, host):
    monkeypatch.setattr(api, "load", lambda *_, **__: Halves())
    monkeypatch.setattr(server.Server, "serve_forever", server.Server.server_close)
    server.serve("runs/toy", host=host, port=0)
    out, err = capsys.readouterr()
    assert out.startswith(f"http://{host}:")
    assert ("warning: --host 0.0.0.0 lets every machine" in err) == (host == "0.0.0.0")


@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_with_keyboard_at_phone_width(address, photo, tmp_path):
    page = browser.Browser(tmp_path / "profile")
    try:
        page.open("http://{}:{}/".format(*address), width=360, height=740)
        page.wait("document.getElementById('about').textContent.includes('3 classes')")
        page.press("Tab", 9)
        assert page.evaluate("document.activeElement.id") == "file"
        page.choose_file("#file", photo)
        page.wait("!document.getElementById('result').hidden")
        page.wait("document.getElementById('colors').naturalWidth === 90")
        assert page.evaluate("document.getElementById('legend').children.length") == 2
        assert "<road>" in page.evaluate("document.getElementById('legend').textContent")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.evaluate("document.getElementById('opacity').focus()")
        before = float(page.evaluate("document.getElementById('colors').style.opacity"))
        page.press("ArrowRight", 39)
        after = float(page.evaluate("document.getElementById('colors').style.opacity"))
        assert after > before
        reached = []
        for _ in range(3):
            page.press("Tab", 9)
            reached.append(page.evaluate("document.activeElement.id"))
        assert reached == ["get-labels", "get-colors", "get-overlay"]
        assert page.evaluate("document.getElementById('get-labels').download") == "a.png"
        page.evaluate("document.getElementById('get-overlay').click()")
        url = page.evaluate("document.getElementById('get-overlay').href")
        assert url.startswith("data:image/png")
        assert page.errors == []
        shot = page.call("Page.captureScreenshot", format="png")["data"]
        (tmp_path / "page.png").write_bytes(base64.b64decode(shot))
        broken = tmp_path / "broken.png"
        broken.write_bytes(photo.read_bytes()[:50])
        page.choose_file("#file", broken)
        page.wait("document.getElementById('status').classList.contains('error')")
        assert "broken.png" in page.evaluate("document.getElementById('status').textContent")
        assert page.evaluate("document.getElementById('result').hidden")
    finally:
        page.close()
