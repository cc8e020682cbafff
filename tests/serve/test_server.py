"""The local page: its answers, its limits, and itself in a browser."""

import http.client
import json
import threading
import types

import browser
import cv2
import numpy as np
import pytest

from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.inference.predictor import Prediction
from fastfcn_jax.serve import server

INFO = DatasetInfo("toy", ("sky", "<road>", "car"), np.eye(3, dtype=np.uint8) * 200)


class Halves:
    """A model that sees sky above and road below, everywhere."""

    info = INFO
    predictor = types.SimpleNamespace(protocol=types.SimpleNamespace(name="single"))

    def predict(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[len(labels) // 2 :] = 1
        return Prediction(labels, np.full(labels.shape, 0.75, np.float32))


@pytest.fixture(scope="module")
def address():
    running = server.Server(("127.0.0.1", 0), Halves())
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running.server_address
    running.shutdown()
    running.server_close()


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
        np.frombuffer(server.base64.b64decode(result["labels"]), np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert labels.shape == (60, 90)
    assert (labels[30:] == 1).all()


def test_bad_uploads_are_one_sentence(address, photo, monkeypatch):
    assert post(address, b"no picture")[0] == 422
    status, result = post(address, photo.read_bytes()[:60])
    assert status == 422
    assert "cut off" in result["error"] or "damaged" in result["error"]
    monkeypatch.setattr(server, "MAX_PIXELS", 1000)
    status, result = post(address, photo.read_bytes())
    assert status == 422
    assert "90x60" in result["error"]


def test_limits_and_strangers_are_refused(address, photo, monkeypatch):
    monkeypatch.setattr(server, "MAX_BYTES", 100)
    assert post(address, b"x" * 101)[0] == 413
    monkeypatch.undo()
    assert post(address, photo.read_bytes(), X_Requested_With="other")[0] == 403
    assert post(address, photo.read_bytes(), Host="evil.example")[0] == 403
    assert ask(address, "GET", "/../../etc/passwd")[0].status == 404
    assert ask(address, "GET", "/")[0].headers["Content-Security-Policy"]


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
        (tmp_path / "page.png").write_bytes(server.base64.b64decode(shot))
        broken = tmp_path / "broken.png"
        broken.write_bytes(photo.read_bytes()[:50])
        page.choose_file("#file", broken)
        page.wait("document.getElementById('status').classList.contains('error')")
        assert "broken.png" in page.evaluate("document.getElementById('status').textContent")
        assert page.evaluate("document.getElementById('result').hidden")
    finally:
        page.close()
