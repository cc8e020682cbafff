"""Photographs behind addresses, for the one-machine `predict`: fsspec's file system in memory."""

import json

import fsspec
import pytest
import toy

from fastfcn_jax import addresses
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import inputs

ROOT = "memory://photos"


@pytest.fixture
def photos(tmp_path):
    """The same photographs in a folder and at an address; hidden and other files beside them."""
    names = ("0.png", "1.png", "x/2.png", "x/y/3.png")
    toy.lay(tmp_path / "in", *names)
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe_file(f"/photos/{name}", (tmp_path / "in" / name).read_bytes())
    memory.pipe_file("/photos/.hidden.png", b"")
    memory.pipe_file("/photos/notes.txt", b"")
    yield tmp_path / "in"
    memory.rm("/photos", recursive=True)


@pytest.mark.parametrize(
    ("source", "here", "count"),
    [
        (ROOT, ".", 4),
        (f"{ROOT}/", ".", 4),
        (f"{ROOT}/x/2.png", "x/2.png", 1),
        (f"{ROOT}/x/**/*.png", "x/**/*.png", 2),
        (f"{ROOT}/*.png", "[01].png", 2),
    ],
)
def test_an_address_gives_what_the_folder_gives(photos, tmp_path, monkeypatch, source, here, count):
    summary, _ = toy.predict(monkeypatch, source, tmp_path / "there")
    toy.predict(monkeypatch, photos / here, tmp_path / "here")
    assert (summary.total, summary.failures) == (count, [])
    written = {
        folder: {
            str(p.relative_to(tmp_path / folder)): p.read_bytes()
            for p in (tmp_path / folder).rglob("*.png")
        }
        for folder in ("there", "here")
    }
    assert written["there"] == written["here"]
    lines = (tmp_path / "there" / "predictions.jsonl").read_text().splitlines()
    sources = [json.loads(line)["input"] for line in lines[1:]]
    assert len(sources) == count
    assert all(source.startswith("memory:///photos/") for source in sources)


def test_what_is_done_is_left_out_and_a_bad_file_is_no_end(photos, tmp_path, monkeypatch):
    toy.predict(monkeypatch, f"{ROOT}/x", tmp_path / "out")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/photos/x/bad.png", b"no picture")
    summary, model = toy.predict(monkeypatch, f"{ROOT}/x", tmp_path / "out", skip_existing=True)
    assert model.predicted == []
    assert summary.failures == [
        "memory:///photos/x/bad.png: damaged, or not a picture; replace the file."
    ]


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        (f"{ROOT}/absent.png", "out", r"absent\.png: no such image or folder"),
        (f"{ROOT}/*.jpg", "out", r"\*\.jpg: no such image or folder"),
        ("nosuch://a/b.png", "out", "nosuch://a: cannot be read .*nosuch"),
        (ROOT, "s3://bucket/out", "--output s3://bucket/out: results go into a folder"),
    ],
)
def test_bad_addresses_are_one_sentence(photos, tmp_path, monkeypatch, source, output, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        toy.predict(monkeypatch, source, output)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_one_sentence(monkeypatch):
    def missing(_):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    addresses._filesystem.cache_clear()
    with pytest.raises(UserError, match=r'pip install "fastfcn-jax\[remote\]" \(Install s3fs'):
        inputs.find("s3://bucket/a.png")


def test_a_path_is_no_address():
    found = [addresses.is_address(words) for words in ("s3://b/a", "gs://b", "/a:/b", "c:/a", "-")]
    assert found == [True, True, False, False, False]
    assert addresses.local("file:///a/b") == "/a/b"
