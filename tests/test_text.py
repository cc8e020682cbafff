"""Text files in other encodings are reported; any file name survives being written to a list."""

import os

import pytest

from fastfcn_jax import files, text
from fastfcn_jax.errors import UserError

NAMES = (
    "plain.jpg",
    "straße 0.jpg",
    os.fsdecode(b"stra\xdfe.jpg"),
    "a\tb\nc.jpg",
    "a\\x41\\b",
    "\x85",
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("grün".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        ("grün".encode("utf-32"), "is in UTF-32"),
        ("grün".encode("utf-16-le"), "holds zero bytes"),
        (b"one\ntwo\nstra\xdfe", r"x\.txt, line 3: byte 0xdf is not UTF-8 \(perhaps cp1252"),
    ],
)
def test_an_encoding_that_is_not_utf_8_is_named(tmp_path, data, words):
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words):
        text.read(path)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffgrün\n".encode())
    assert text.read(tmp_path / "x.txt") == "grün\n"


def test_a_file_that_is_not_text_gives_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot be read"):
        text.read(tmp_path)
    monkeypatch.setattr(text, "MAX_BYTES", 10)
    (tmp_path / "x").write_bytes(b"x" * 11)
    with pytest.raises(UserError, match="larger than"):
        text.read(tmp_path / "x")


@pytest.mark.parametrize("name", NAMES)
def test_an_escaped_name_is_recovered(tmp_path, name):
    files.write_text(tmp_path / "list", f"{text.escaped(name)}\r\n")
    assert text.unescaped(text.lines(text.read(tmp_path / "list"))[0]) == name


def test_a_byte_that_is_not_utf_8_is_shown():
    assert text.shown(NAMES[2]) == "stra\\xdfe.jpg"
    assert text.shown("a\\b\ud800") == "a\\b\\ud800"


def test_a_sample_id_becomes_a_file_name(tmp_path):
    ids = ["images/train/a", "images/" + "\u00e4" * 120, "images/" + "\u00e4" * 121, NAMES[2]]
    names = [files.name_of(sample) for sample in ids]
    assert names[0] == "images_train_a"
    assert len(set(names)) == 4
    for name in names:
        (tmp_path / f"12_{name}_overlay.png").write_text(name, "utf-8")
