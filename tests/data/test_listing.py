"""Listing the files of a folder."""

import os
import socket
from pathlib import Path, PurePosixPath

from fastfcn_jax.data import listing


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_entries_are_left_out_and_links_followed(tmp_path):
    store, folder = tmp_path / "store", tmp_path / ".data" / "photos"
    _touch(store / "b.jpg", folder / "a.jpg", folder / "sub" / "c.jpg")
    _touch(folder / "._a.jpg", folder / ".ipynb_checkpoints" / "a.jpg", folder / "Thumbs.db")
    _touch(folder / "__MACOSX" / "a.jpg")
    (folder / "linked").symlink_to(store)
    (folder / "z.jpg").symlink_to(folder / "a.jpg")
    found = listing.below(folder)
    names = [str(p.relative_to(folder)) for p in found.files]
    assert names == ["a.jpg", "linked/b.jpg", "sub/c.jpg", "z.jpg"]
    assert found.unreadable == []
    assert [p.name for p in listing.below(folder, recursive=False).files] == ["a.jpg", "z.jpg"]


def test_circles_of_links_pipes_and_broken_links_are_named(tmp_path):
    _touch(tmp_path / "sub" / "a.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s.jpg"))
        found = listing.below(tmp_path)
    assert [p.name for p in found.files] == ["a.jpg"]
    said = dict(line.removeprefix(f"{tmp_path}/").split(": ") for line in found.unreadable)
    assert said == {
        "gone.jpg": "a broken link",
        "pipe.jpg": "a pipe, not a file",
        "s.jpg": "a socket, not a file",
        "sub/up": "a link to a folder that contains it",
    }


def test_one_folder_may_be_linked_twice(tmp_path):
    _touch(tmp_path / "store" / "a.jpg")
    (tmp_path / "data").mkdir()
    for name in ("train", "val"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "store")
    assert len(listing.below(tmp_path / "data").files) == 2


def test_a_path_is_hidden_by_any_of_its_parts():
    assert listing.is_hidden(PurePosixPath("a/.git/b.png"))
    assert not listing.is_hidden(PurePosixPath("a/b.png"))
