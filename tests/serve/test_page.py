"""The page of the server in a browser: keyboard, several photographs, layers, zoom, waiting."""

import threading

import browser
import cv2
import numpy as np
import pytest
from serving import Halves, make, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed"),
]


class Slow(Halves):
    """Says that it compiles, and waits until the test has seen it."""

    def __init__(self):
        self.may = threading.Event()
        self.say = print

    def predict(self, image):
        self.say("compiling for 60x90 (once)")
        assert self.may.wait(60)
        return super().predict(image)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def model():
    return Slow()


@pytest.fixture(scope="module")
def url(model):
    with running(make(model)) as (host, port):
        yield f"http://{host}:{port}/"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "a.png"
    cv2.imwrite(str(path), np.full((60, 90, 3), 90, np.uint8))
    return path


def text(page, name):
    return page.evaluate(f"document.getElementById('{name}').textContent")


def colors_at(page, x, y):
    """The pixel of the coloured layer."""
    pen = "document.getElementById('colors').getContext('2d')"
    return page.evaluate(f"Array.from({pen}.getImageData({x}, {y}, 1, 1).data)")


def test_with_the_keyboard_at_phone_width(page, url, model, photo):
    page.open(url, width=390, height=740)
    page.wait("document.getElementById('about').textContent.includes('3 classes')")
    for reached in ("A", "INPUT"):
        page.press("Tab", 9)
        assert page.evaluate("document.activeElement.tagName") == reached
    page.choose_file("#file", photo)
    page.wait("document.getElementById('status').textContent.includes('compiling for 60x90')")
    assert not page.evaluate("document.getElementById('busy').hidden")
    model.may.set()
    page.wait("!document.getElementById('result').hidden")
    assert page.evaluate("document.getElementById('busy').hidden")
    assert page.evaluate("document.getElementById('classes').children.length") == 2
    assert "<road>50.0" in text(page, "classes")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("document.getElementById('opacity').focus()")
    before = float(page.evaluate("document.getElementById('colors').style.opacity"))
    page.press("ArrowRight", 39)
    assert float(page.evaluate("document.getElementById('colors').style.opacity")) > before
    assert page.evaluate("document.getElementById('get-labels').download") == "a.png"
    page.evaluate("document.getElementById('get-overlay').click()")
    url = page.evaluate("document.getElementById('get-overlay').href")
    assert url.startswith("data:image/png")
    assert page.errors == []


def test_classes_and_layers(page, url, model, photo):
    model.may.set()
    page.open(url)
    page.choose_file("#file", photo)
    page.wait("!document.getElementById('result').hidden")
    assert colors_at(page, 5, 5) == [200, 0, 0, 255]
    assert colors_at(page, 5, 50) == [0, 200, 0, 255]
    page.evaluate("document.querySelectorAll('#classes input')[1].click()")
    assert colors_at(page, 5, 50)[3] == 0  # switched off: the photograph shows
    assert page.evaluate("document.getElementById('all').indeterminate")
    page.evaluate("document.querySelector('[value=confidence]').click()")
    assert colors_at(page, 5, 5) == [191, 191, 191, 255]
    page.evaluate("document.getElementById('all').click()")
    assert colors_at(page, 5, 50) == [191, 191, 191, 255]
    page.evaluate("document.getElementById('closer').click()")
    assert text(page, "factor") == "150\xa0%"
    page.evaluate("document.getElementById('window').focus()")
    before = page.evaluate("view.x")
    page.press("ArrowRight", 39)
    assert page.evaluate("view.x") < before
    page.evaluate("document.getElementById('whole').click()")
    assert page.evaluate("document.getElementById('stage').style.transform").endswith("scale(1)")
    assert page.errors == []


def test_several_files_a_bad_one_and_the_example(page, url, model, photo, tmp_path):
    model.may.set()
    page.open(url)
    page.wait("!document.getElementById('example').hidden")
    page.evaluate("document.getElementById('example').click()")
    page.wait("document.getElementById('status').textContent.startsWith('example.png: 480')")
    phone = tmp_path / "IMG_1.heic"
    phone.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    page.choose_file("#file", phone)
    page.wait("document.getElementById('status').classList.contains('error')")
    assert text(page, "status").startswith("IMG_1.heic: ")
    assert "HEIC" in text(page, "status")
    assert page.evaluate("document.getElementById('result').hidden")
    page.choose_file("#file", photo)
    page.wait("document.getElementById('status').textContent.startsWith('a.png: 90')")
    assert page.evaluate("document.querySelectorAll('#list li').length") == 3
    page.evaluate("document.querySelectorAll('#list button')[0].click()")
    assert text(page, "status").startswith("example.png: 480")
    assert page.evaluate("document.getElementById('get-overlay').download") == "example_overlay.png"
    assert [error for error in page.errors if "422" not in error] == []


def test_the_page_for_programs_lists_every_address(page, url):
    page.errors.clear()
    page.open(url + "docs", width=390, height=740)
    page.wait("document.getElementById('schemas').children.length > 0")
    shown = text(page, "paths")
    for address in ("POST /v1/predict", "GET /v1/model", "GET /healthz", "GET /metrics"):
        assert address in shown
    assert "503" in shown
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.errors == []
