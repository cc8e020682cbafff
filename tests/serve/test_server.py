"""The server: its replies, its limits, its queue, and how it ends."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from serving import Halves, ask, make, post, raw, running

from fastfcn_jax import api, models
from fastfcn_jax.data import datasets, pixel_type
from fastfcn_jax.errors import UserError
from fastfcn_jax.serve import answer, application, connection, server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, image)[1].tobytes()


PHOTO = encoded(np.full((60, 90, 3), 90, np.uint8))


def pixels(text):
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def address():
    with running() as found:
        yield found


def test_an_upload_is_answered_with_maps_and_shares(address):
    status, result = post(address, PHOTO)
    assert status == 200
    assert (result["width"], result["height"], result["photo"]) == (90, 60, "")
    assert [(c["name"], c["share"]) for c in result["classes"]] == [("sky", 50), ("<road>", 50)]
    assert [(c["index"], c["color"]) for c in result["classes"]] == [(0, "#c80000"), (1, "#00c800")]
    labels, confidence = pixels(result["labels"]), pixels(result["confidence"])
    assert labels.shape == confidence.shape == (60, 90)
    assert (labels[30:] == 1).all()
    assert (confidence == 191).all()
    assert result["mean_confidence"] == 0.75


def test_a_picture_is_answered_where_one_is_asked_for(address):
    for path, headers in (
        ("/v1/predict?output=labels", {}),
        ("/v1/predict", {"Accept": "image/png"}),
    ):
        reply, content = ask(address, "POST", path, PHOTO, **headers)
        assert reply.headers["Content-Type"] == "image/png"
        picture = Image.open(io.BytesIO(content))
        assert (np.asarray(picture)[30:] == 1).all()
        assert picture.getpalette()[:6] == [200, 0, 0, 0, 200, 0]
    _, content = ask(address, "POST", "/v1/predict?output=overlay", PHOTO)
    # Half the photograph's grey, half the class's colour.
    assert np.asarray(Image.open(io.BytesIO(content)))[59, 0].tolist() == [45, 145, 45]
    _, content = ask(address, "POST", "/v1/predict?output=confidence", PHOTO)
    assert np.asarray(Image.open(io.BytesIO(content)))[59, 0] == 191
    status, result = post(address, PHOTO, "/v1/predict?output=pdf")
    assert status == 422
    assert result["error"].startswith("output: ")


def test_bad_uploads_are_one_sentence(address, monkeypatch):
    assert post(address, b"no picture")[0] == 422
    status, result = post(address, PHOTO[:60])
    assert status == 422
    assert "cut off" in result["error"] or "damaged" in result["error"]
    status, result = post(address, b"\0\0\0\x18ftypheic" + b"\0" * 100)
    assert status == 422
    assert "HEIC" in result["error"]
    form = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + PHOTO + b"\r\n--x--\r\n"
    status, result = post(address, form, Content_Type="multipart/form-data; boundary=x")
    assert status == 415
    assert "--data-binary" in result["error"]
    monkeypatch.setattr(answer, "MAX_PIXELS", 1000)
    status, result = post(address, PHOTO)
    assert status == 422
    assert "90x60" in result["error"]


def test_limits_and_strangers_are_refused(address, monkeypatch):
    monkeypatch.setattr(application, "MAX_BYTES", 100)
    assert post(address, b"x" * 101)[0] == 413
    assert post(address, b"x" * 5_000_000)[0] == 413  # read to its end: no reset
    chunks = (b"x" * 60 for _ in range(2))  # whose length is not announced
    assert post(address, chunks)[0] == 413
    monkeypatch.undo()
    assert post(address, (PHOTO,))[0] == 200
    port = address[1]
    assert post(address, PHOTO, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert post(address, PHOTO, Origin="http://evil.example")[0] == 403
    assert post(address, PHOTO, Origin="http://localhost:1")[0] == 403
    assert post(address, PHOTO, Origin="null")[0] == 403
    assert post(address, PHOTO, Sec_Fetch_Site="cross-site")[0] == 403
    behind_a_proxy = {"Origin": "https://segment.example", "Sec_Fetch_Site": "same-origin"}
    assert post(address, PHOTO, **behind_a_proxy)[0] == 200
    assert post(address, PHOTO, Host="evil.example")[0] == 403
    assert ask(address, "GET", "/../../etc/passwd")[0].status == 404
    assert ask(address, "GET", "/")[0].headers["Content-Security-Policy"]


POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
STRANGE = [
    (GET + b"Host: [::1\r\n\r\n", 403),
    (GET + b"Host: [::1]:80\r\n\r\n", 200),
    (GET + b"Host: LOCALHOST:80\r\n\r\n", 200),
    (GET + b"Host: \xff\xfe\r\n\r\n", 403),
    (GET + b"Host: evil.example@localhost\r\n\r\n", 403),
    (GET + b"Host: localhost\r\nOrigin: http://[::1\r\n\r\n", 403),
    (GET + b"\r\n", 400),
    (b"GET /healthz HTTP/1.0\r\n\r\n", 403),
    (b"GET /healthz\r\n\r\n", 400),
    (b"\r\n", 400),
    (b"\xa0\r\n", 400),
    (b"\xff\x00\x01\r\n\r\n", 400),
    (GET[:20], 400),
    (b"GET / HTTP/\xb2.\xb2\r\n\r\n", 400),
    (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 400),
    (GET + b"a: b\r\n" * 20_000 + b"\r\n", 400),
    (b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (POST + b"Content-Length: \xb2\r\n\r\n", 400),
    (POST + b"Content-Length: -1\r\n\r\n", 400),
    (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", 400),
    (POST + b"Content-Length: 0\r\n\r\n", 413),
    (POST + b"\r\n", 413),
    (POST + b"Content-Length: 9\r\n\r\nhalf", 400),
    (POST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx", 422),
]


@pytest.mark.parametrize(("request_bytes", "status"), STRANGE)
def test_strange_requests_are_answered(address, capfd, request_bytes, status):
    found, body = raw(address, request_bytes)
    assert found == status
    if status != 200:
        assert json.loads(body)["error"]
    assert capfd.readouterr().err == ""


def test_an_upload_that_is_announced_too_large_is_not_waited_for(address):
    with socket.create_connection(address, timeout=30) as opened:
        opened.sendall(POST + b"Content-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n")
        assert opened.recv(12) == b"HTTP/1.1 413"


def test_a_client_that_sends_no_more_still_gets_its_reply(monkeypatch):
    monkeypatch.setattr(connection, "PROBE_SECONDS", 0.05)
    gate = Gate()
    with running(make(gate)) as address, ThreadPoolExecutor(1) as client:
        request = POST + b"Content-Length: %d\r\n\r\n" % len(PHOTO) + PHOTO
        reply = client.submit(raw, address, request)
        time.sleep(0.3)
        gate.may.set()
        assert reply.result()[0] == 200


def test_one_connection_takes_several_requests(address):
    with socket.create_connection(address, timeout=30) as opened:
        whole = POST + b"Content-Length: %d\r\n\r\n" % len(PHOTO) + PHOTO
        opened.sendall(whole + whole + GET + b"Host: localhost\r\nConnection: close\r\n\r\n")
        replies = b"".join(iter(lambda: opened.recv(1 << 16), b""))
    assert re.findall(rb"HTTP/1.1 (\d+) ", replies) == [b"200"] * 3


def test_the_limit_on_taking_a_reply_spares_later_requests(address, monkeypatch):
    monkeypatch.setattr(connection, "TAKING_SECONDS", 0.3)
    opened = http.client.HTTPConnection(*address, timeout=30)
    for _ in range(2):
        opened.request("GET", "/example.png")
        assert len(opened.getresponse().read()) > 1 << 16  # more than one part
        opened.auto_open = 0  # the second request takes the same connection
        time.sleep(0.5)
    opened.close()


def test_an_internal_error_is_answered_and_printed(address, capfd):
    def fails(self, image):
        raise ZeroDivisionError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Halves, "predict", fails)
        status, result = post(address, PHOTO)
    assert status == 500
    assert result == {"error": "the server failed on this request; its terminal shows why"}
    told = capfd.readouterr().err
    assert told.startswith("error: while answering POST '/v1/predict':")
    assert "ZeroDivisionError: a bug" in told
    assert post(address, PHOTO)[0] == 200


@pytest.mark.parametrize("start", [POST + b"Content-Length: 1000000\r\n\r\n", GET, b""])
def test_a_request_that_trickles_is_ended(address, monkeypatch, start):
    monkeypatch.setattr(connection, "SENDING_SECONDS", 0.5)
    with socket.create_connection(address, timeout=30) as opened:
        opened.sendall(start)
        for _ in range(200):
            opened.sendall(b"a")
            time.sleep(0.05)
            opened.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                assert b" 408 " in opened.recv(1000)
                return
            opened.setblocking(True)
    pytest.fail("the request was still taken after 10 seconds")


def test_a_reply_that_nobody_takes_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "TAKING_SECONDS", 0.5)
    noise = encoded(np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8), ".jpg")
    with running() as address, socket.create_connection(address) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1000)
        path = POST.replace(b"predict", b"predict?output=overlay")
        opened.sendall(path + b"Content-Length: %d\r\n\r\n" % len(noise) + noise)
        until(lambda: held(address) == 1, "the request is held")
        until(lambda: held(address) == 0, "the reply is given up")
        assert opened.recv(12) == b"HTTP/1.1 200"  # it had begun
        measures = ask(address, "GET", "/metrics")[1].decode()
        assert 'fastfcn_replies_total{status="500"}' not in measures


def held(address):
    return json.loads(ask(address, "GET", "/v1/status")[1])["requests"]


class Gate(Halves):
    """A model that waits until it is let through."""

    def __init__(self):
        self.may, self.seen = threading.Event(), 0

    def predict(self, image):
        assert self.may.wait(30)
        self.seen += 1
        return super().predict(image)


def until(holds, what):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_full_queue_is_503_and_those_who_left_are_not_predicted(monkeypatch):
    monkeypatch.setattr(connection, "PROBE_SECONDS", 0.05)
    gate = Gate()
    with running(make(gate, places=6)) as address, ThreadPoolExecutor(6) as clients:
        waiting = [clients.submit(post, address, PHOTO) for _ in range(5)]
        until(lambda: held(address) == 5, "five are held")
        with socket.create_connection(address) as leaving:
            leaving.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(PHOTO) + PHOTO)
            until(lambda: held(address) == 6, "six are held")
            reply, content = ask(address, "POST", "/v1/predict", PHOTO)
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert "6 requests are waiting" in json.loads(content)["error"]
        status = json.loads(ask(address, "GET", "/v1/status")[1])
        assert (status["doing"], status["places"]) == ("predicting", 6)
        assert ask(address, "GET", "/healthz")[0].status == 200  # busy is not ill
        time.sleep(0.5)  # the sixth has left: it is noticed
        gate.may.set()
        assert [future.result()[0] for future in waiting] == [200] * 5
        until(lambda: held(address) == 0, "all places are free again")
        assert gate.seen == 5
        measures = ask(address, "GET", "/metrics")[1].decode()
        assert 'fastfcn_replies_total{status="503"} 1.0' in measures
        assert 'fastfcn_replies_total{status="499"} 1.0' in measures
        assert "fastfcn_prediction_seconds_count 5.0" in measures


def test_uploads_have_a_limit_together(monkeypatch):
    from fastfcn_jax.serve import desk

    monkeypatch.setattr(desk, "MAX_HELD", 1000)
    with running() as address, socket.create_connection(address) as slow:
        slow.sendall(POST + b"Content-Length: 5000\r\n\r\n")  # alone, any size is taken
        until(lambda: held(address) == 1, "held")
        assert post(address, PHOTO)[0] == 503


def test_stopping_answers_what_has_begun():
    gate = Gate()
    made = make(gate)
    with running(made) as address, ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(post, address, PHOTO) for _ in range(3)]
        until(lambda: made.application.desk.held == 3, "three are held")
        made.stop()
        until(lambda: socket.socket().connect_ex(address) != 0, "nobody else is let in")
        gate.may.set()
        assert [future.result()[0] for future in waiting] == [200] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0(number):
    program = "from serving import make\ns = make()\nprint(s.url, flush=True)\ns.run()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    host, port = process.stdout.readline().strip().removeprefix("http://").split(":")
    until(lambda: socket.socket().connect_ex((host, int(port))) == 0, "it listens")
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 0


def test_many_connections_at_once_wait_for_their_turn():
    made = make()
    with running(made) as address:
        waiting = [socket.create_connection(address, timeout=30) for _ in range(200)]
        for opened in waiting:
            opened.sendall(GET + b"Host: localhost\r\n\r\n")
        for opened in waiting:
            assert opened.recv(12) == b"HTTP/1.1 200"
            opened.close()


def test_more_connections_than_can_be_held_are_told_so(monkeypatch):
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 2)
    with running() as address:
        held = [socket.create_connection(address) for _ in range(2)]
        until(lambda: raw(address, b"")[0] == 503, "the third is refused")
        for opened in held:
            opened.close()
        until(lambda: ask(address, "GET", "/healthz")[0].status == 200, "there is room again")


def test_the_client_of_the_docs(address, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/serving.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(encoded(np.full((60, 90, 3), 90, np.uint8), ".jpg"))
    names = {}
    exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{address[1]}"), names)
    assert "<road>: 50.0 %" in capsys.readouterr().out
    assert (names["labels"][30:] == 1).all()


def test_the_interface_describes_itself(address):
    described = json.loads(ask(address, "GET", "/openapi.json")[1])
    predict = described["paths"]["/v1/predict"]["post"]
    assert set(predict["responses"]) == {"200", "403", "408", "413", "415", "422", "503"}
    assert set(predict["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert "image/*" in predict["requestBody"]["content"]
    assert {"/healthz", "/metrics", "/v1/model", "/v1/status"} < set(described["paths"])
    about = json.loads(ask(address, "GET", "/v1/model")[1])
    assert about["classes"][1] == {"name": "<road>", "color": "#00c800"}
    assert about["example"] is True
    reply, picture = ask(address, "GET", "/example.png")
    assert (reply.status, picture[:4]) == (200, b"\x89PNG")


def test_a_model_of_other_images_has_no_example_and_sends_its_photo():
    class Grey(Halves):
        pixel = pixel_type.PixelType(1, "uint16")

    with running(make(Grey())) as address:
        assert ask(address, "GET", "/example.png")[0].status == 404
        status, result = post(address, encoded(np.full((4, 6), 1000, np.uint16)))
        assert status == 200
        assert pixels(result["photo"]).shape == (4, 6, 3)
        assert post(address, PHOTO)[0] == 422


def test_programs_of_many_sizes_are_forgotten(monkeypatch):
    monkeypatch.setattr(answer, "MAX_PROGRAMS", 1)
    c = tiny.get_config()
    c.data.test_scale = (0, 0)
    network = tiny.build(c.model, 9)
    variables = network.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)))
    monkeypatch.setattr(models, "build", lambda *_, **__: network)
    model = api.Model(c, datasets.info("synthetic", ""), variables, quiet=True)
    answers = answer.Answerer(model, application.Occupation())
    seen, labels = [], []
    for height in (32, 64, 32):
        labels.append(answers(encoded(np.full((height, 32, 3), 90, np.uint8)), "labels"))
        seen.append(model.programs)
    assert seen == [1, 2, 1]  # the third begins anew
    assert labels[2] == labels[0]


def test_in_a_notebook_it_runs_beside_the_event_loop():
    async def cell(made):
        made.run()

    made = make()
    thread = threading.Thread(target=lambda: asyncio.run(cell(made)))
    thread.start()
    until(lambda: made._uvicorn.started, "it runs")
    assert post(made.address, PHOTO)[0] == 200
    made.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_addresses():
    for host, port, reason in (
        ("127.0.0.1", 65536, "ports go from 0 to 65535"),
        ("127.0.0.1", -1, "ports go from 0 to 65535"),
        ("192.0.2.1", 0, "cannot listen there"),
        ("a" * 300, 0, "cannot listen there"),
    ):
        with pytest.raises(UserError, match=reason):
            server.listen(host, port)
    for host, is_local in (("0.0.0.0", False), ("127.0.0.2", True)):
        made = make(host=host)
        assert made.is_local == is_local
        assert made.is_called("127.0.0.2")
        assert made.is_called("anything.example") != is_local
        made._listener.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_the_other_loopback_address():
    made = make(host="::1")
    assert made.url == f"http://[::1]:{made.address[1]}"
    with running(made) as address:
        assert raw(address, GET + b"Host: [::1]\r\n\r\n")[0] == 200
        assert raw(address, GET + b"Host: evil.example\r\n\r\n")[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_serving_everybody_is_warned_of(monkeypatch, capsys, host):
    monkeypatch.setattr(server, "_load", lambda *_: (Halves(), "single"))
    monkeypatch.setattr(server.Server, "run", lambda self: self._listener.close())
    server.serve("runs/toy", host=host, port=0)
    out, err = capsys.readouterr()
    assert out.startswith(f"http://{host}:")
    assert ("warning: --host 0.0.0.0 lets every machine" in err) == (host == "0.0.0.0")


def test_a_taken_port_is_noticed_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(server, "_load", lambda *_: pytest.fail("the model was loaded"))
    with server.listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot listen there"):
            server.serve("runs/toy", port=port)


def test_missing_packages_are_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"needs the package uvicorn: pip install 'fastfcn-jax\["):
        server.serve("runs/toy")
