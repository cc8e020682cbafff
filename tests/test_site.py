"""The docs site: it builds strictly, loads nothing from elsewhere, is ordered as the index."""

import functools
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import browser
import pytest
import yaml
from mkdocs.utils.yaml import get_yaml_loader

import fastfcn_jax

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


class Resources(HTMLParser):
    """Collects what a page loads by itself, and the text of its first heading."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        value = dict(attrs).get(LOADED.get(tag, ""))
        if value and not (
            tag == "link" and dict(attrs).get("rel") in ("canonical", "next", "prev")
        ):
            self.found.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def pages() -> list[list[str]]:
    """The pages of each section in mkdocs.yml."""
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), get_yaml_loader(yaml.Loader))
    return [
        [page if isinstance(page, str) else next(iter(page.values())) for page in entries]
        for section in settings["nav"]
        for entries in section.values()
    ]


def test_the_navigation_has_the_sections_of_the_index():
    sections = re.split(r"^## ", (DOCS / "index.md").read_text(), flags=re.M)[1:]
    linked = [re.findall(r"\]\(([^)#]+)\)", section) for section in sections]
    moved = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}
    card = "../fastfcn_jax/weights/camvid_small/README.md"
    moved[card] = "camvid_small.md"
    names = [
        [moved.get(link, re.sub(r"^\.\./|ipynb$", "", link)) for link in links] for links in linked
    ]
    names = [[name + "md" if name.endswith(".") else name for name in links] for links in names]
    assert pages() == [["index.md", *names[0]], *names[1:]]


@pytest.mark.slow
def test_it_builds_strictly_with_every_page(site):
    for page in [page for section in pages() for page in section]:
        text = (site / page.replace(".md", ".html")).read_text()
        assert "<h1" in text, page
        assert ":::" not in text, page
    reference = (site / "api_reference.html").read_text()
    for name in [*set(fastfcn_jax.__all__) - {"__version__"}, "JPU", "EncHead"]:
        assert re.search(rf"<h3[^>]*>\s*(?:<[^>]+>)*{name}\b", reference), name
    assert "no intact model in it" in reference  # of load's docstring
    assert not list(site.rglob("hooks.py"))


@pytest.mark.slow
def test_it_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for address in Resources(page.read_text()).found:
            assert "//" not in address, f"{page.name} loads {address}"
            file = page.parent / address.partition("?")[0].partition("#")[0]
            absolute = page.name == "404.html"  # is served for any address
            assert absolute or file.exists(), f"{page.name} lacks {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text()), sheet


@pytest.fixture
def address(site):
    """The site, served on this machine."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs chromium")
def test_pages_fit_a_phone_and_the_search_finds(address, tmp_path):
    page = browser.Browser(tmp_path)
    try:
        for name in ("index", "datasets", "commands", "api_reference"):
            page.open(f"{address}/{name}.html", width=390)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        page.open(f"{address}/index.html", width=1280)
        page.wait("document.querySelector('.md-search__input') !== null")
        page.evaluate(
            """(() => {
                const field = document.querySelector(".md-search__input");
                field.focus();
                field.value = "deterministic";
                field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
            })()"""
        )
        page.wait("document.querySelectorAll('.md-search-result__item').length > 0")
        assert page.errors == []
    finally:
        page.close()
