"""What `predict` finds and writes with unusual names, folders and disks."""

import os
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from fastfcn_jax import files, pictures
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.predict import inputs, outputs

PHOTO = cv2.imencode(".png", np.zeros((8, 9, 3), np.uint8))[1].tobytes()


class Model:
    """Labels every pixel 1."""

    pixel = RGB
    info = DatasetInfo("toy", ("sky", "road"), np.eye(3, dtype=np.uint8)[:2] * 255)
    predictor = types.SimpleNamespace(
        stream=lambda images, confidence: (
            (key, Prediction(np.ones(image.shape[:2], np.uint8), None)) for key, image in images
        )
    )


def lay(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO)


def predict(source: Path, output: Path) -> list[str]:
    output.mkdir(exist_ok=True)
    found = inputs.find(str(source), output)
    return outputs.predict_photographs(
        Model(), found, outputs.Writer(output, Model()), confidence=False
    )


def test_names_that_are_not_utf_8_get_results(tmp_path):
    lay(tmp_path / "in", b"stra\xdfe.png", b"\xe4/b.png", "ok.png")
    assert predict(tmp_path / "in", tmp_path / "out") == []
    for name in (b"stra\xdfe", b"\xe4/b", b"ok"):
        for ending in (b".png", b"_overlay.png"):
            path = os.path.join(os.fsencode(tmp_path), b"out", name + ending)
            assert Path(os.fsdecode(path)).read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.parametrize("name", ["x" * 246 + ".png", "x" * 240 + ".png", "taken.png"])
def test_what_cannot_be_written_is_one_sentence_and_the_rest_is_done(tmp_path, name):
    lay(tmp_path / "in", "a.png", name, "z.png")
    (tmp_path / "out" / "taken.png").mkdir(parents=True)
    failures = predict(tmp_path / "in", tmp_path / "out")
    done = sorted(p.name for p in (tmp_path / "out").iterdir() if p.name[0] in "az")
    assert done == ["a.png", "a_overlay.png", "z.png", "z_overlay.png"]
    if len(name) > 245:
        (sentence,) = failures
        assert "cannot be written: File name too long." in sentence
    elif name == "taken.png":
        (sentence,) = failures
        assert f"{tmp_path / 'out' / 'taken.png'} cannot be written: Is a directory." in sentence
    else:
        assert failures == []


def test_a_full_disk_is_reported_even_if_the_clean_up_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def broken(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "unlink", broken)
    monkeypatch.setattr(pictures, "overlay", full)
    with pytest.raises(UserError, match=r"x: no space left on the disk; free some"):
        files.write_text(tmp_path / "x", "")
    writer = outputs.Writer(tmp_path, Model())
    prediction = Prediction(np.ones((8, 9), np.uint8), None)
    (sentence,) = writer.failure("x", np.zeros((8, 9, 3), np.uint8), prediction)
    assert "x.png: no space left on the disk; free some and run again." in sentence


def test_brackets_of_a_folder_that_exists_are_part_of_its_name(tmp_path):
    lay(tmp_path / "dir [a]" / "x", "1.png", "b.png")
    lay(tmp_path / "dir a", "2.png")
    found = inputs.find(str(tmp_path / "dir [a]" / "*" / "[0-9].png"))
    assert [photo.path.name for photo in found] == ["1.png"]
    found = inputs.find(str(tmp_path / "dir [ab]" / "*.png"))
    assert [photo.path.name for photo in found] == ["2.png"]
    found = inputs.find(str(tmp_path / "dir [a]"))
    assert len(found) == 2


def test_what_is_left_out_is_counted_by_type(tmp_path, capsys):
    lay(tmp_path, "a.gif", "b.heic", "c.HEIC", "d.avif", "notes", ".hidden.png", "__MACOSX/a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert [photo.stem for photo in inputs.find(str(tmp_path))] == ["a"]
    said = capsys.readouterr().out
    assert "left out, as they are not supported images: 2 .heic, 1 .avif, 1 without" in said
    assert "pipe.png: a pipe, not a file" in said
    (tmp_path / "a.gif").unlink()
    with pytest.raises(UserError, match=r"holds no image \(.*\), but 2 \.heic, 1 \.avif"):
        inputs.find(str(tmp_path))
    with pytest.raises(UserError, match="neither a file nor a folder; pipe it into"):
        inputs.find(str(tmp_path / "pipe.png"))


def test_a_circle_of_links_gives_each_photograph_once(tmp_path):
    lay(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    for source in (tmp_path, tmp_path / "**" / "*.png"):
        assert len(inputs.find(str(source))) == 1


def test_results_of_two_photographs_have_names_of_their_own(tmp_path):
    lay(tmp_path, "a.png", "a_overlay.png", "b.png")
    stems = [photo.stem for photo in inputs.find(str(tmp_path))]
    assert stems == ["a_png", "a_overlay_png", "b_png"]


def test_a_video_whose_name_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"\xdf.mp4")
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"\\xdf\.mp4: OpenCV needs a UTF-8 name"):
        inputs.Video(path)
