"""Data sets at addresses: copied once, and then read like folders."""

import fsspec
import numpy as np
import pytest

from fastfcn_jax.data import cache, datasets, mirror
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.errors import UserError


@pytest.fixture
def address(camvid_root, tmp_path, monkeypatch):
    """The address of a data set in fsspec's file system in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(f"{camvid_root}/", "/camvid/", recursive=True)
    mirror.folder_of.cache_clear()
    yield "memory://camvid"
    mirror.folder_of.cache_clear()
    memory.rm("/camvid", recursive=True)


def test_a_data_set_at_an_address_is_that_of_its_folder(address, camvid_root, tmp_path):
    there = datasets.load("camvid", address, "train", RGB)
    here = datasets.load("camvid", str(camvid_root), "train")
    assert list(there.ids) == list(here.ids)
    decoded = cache.open_or_build(str(tmp_path / "decoded"), there)
    for one, other in zip(decoded, (here[0], here[1]), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)


def test_only_what_is_missing_is_copied(address, monkeypatch, capsys):
    folder = mirror.folder_of(address)
    assert "copying 4 files" in capsys.readouterr().err
    mirror.folder_of.cache_clear()
    (path,) = [p for p in mirror.Path(folder).rglob("1.png") if p.parent.name == "train"]
    path.write_bytes(b"cut")
    assert mirror.folder_of(address) == folder
    assert "copying 1 files" in capsys.readouterr().err
    assert len(path.read_bytes()) > 3


def test_what_is_gone_at_the_address_is_gone_in_the_copy(address):
    (kept,) = [
        p for p in mirror.Path(mirror.folder_of(address)).rglob("1.png") if p.parent.name == "train"
    ]
    mirror.folder_of.cache_clear()
    fsspec.filesystem("memory").rm("/camvid/train/1.png")
    assert not (mirror.Path(mirror.folder_of(address)) / "train" / "1.png").exists()
    assert not kept.exists()


def test_files_of_unknown_size_are_copied_once(address, monkeypatch, capsys):
    sized = mirror.addresses.below
    monkeypatch.setattr(
        mirror.addresses, "below", lambda root: {path: {"size": None} for path in sized(root)}
    )
    folder = mirror.folder_of(address)
    assert "copying 4 files" in capsys.readouterr().err
    assert len([path for path in mirror.Path(folder).rglob("*") if path.is_file()]) == 4
    mirror.folder_of.cache_clear()
    assert mirror.folder_of(address) == folder
    assert capsys.readouterr().err == ""


def test_a_name_that_leads_out_of_the_copy_is_refused(address, monkeypatch):
    monkeypatch.setattr(mirror.addresses, "below", lambda _: {"/camvid/../../a": {"size": 1}})
    with pytest.raises(UserError, match="leads out of it"):
        mirror.folder_of(address)


def test_nothing_at_an_address_is_one_sentence(address):
    with pytest.raises(UserError, match=r"data\.root memory://absent: no files there"):
        datasets.load("camvid", "memory://absent", "train")
