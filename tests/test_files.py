"""Result files: complete or absent; a disk error is reported even if the clean-up fails too."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from fastfcn_jax import files
from fastfcn_jax.errors import UserError


def test_a_failed_write_keeps_the_old_file(tmp_path):
    files.write_text(tmp_path / "a.txt", "before")
    with pytest.raises(TypeError), files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half") + "a count and a text"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_even_if_the_clean_up_fails(tmp_path, monkeypatch, number):
    def fails(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "unlink", fails)
    with pytest.raises(UserError, match=r"a\.txt: no space left on the disk; free some"):  # noqa: SIM117
        with files.replacing(tmp_path / "a.txt"):
            raise OSError(number, os.strerror(number))


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    files.write_json(tmp_path / f"{'n' * 250}.json", {})
    files.write_image(tmp_path / f"{'n' * 251}.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match=r"cannot be written: File name too long\."):
        files.write_json(tmp_path / f"{'n' * 251}.json", {})
    assert len(list(tmp_path.iterdir())) == 2


def test_an_output_name_is_checked_before_the_work(tmp_path):
    files.refuse_existing(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, reason in (
        ("link", "already exists"),
        ("none/new", "does not exist"),
        ("link/new", "does not exist"),
        ("n" * 256, "cannot be written: File name too long"),
    ):
        with pytest.raises(UserError, match=reason):
            files.refuse_existing(tmp_path / name)
