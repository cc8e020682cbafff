"""What `predict` finds and writes with unusual names, folders and disks."""

import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy

from fastfcn_jax import files, pictures
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.predict import inputs, video
from fastfcn_jax.predict.settings import Settings
from fastfcn_jax.predict.writer import Result, Writer

PHOTO = cv2.imencode(".png", np.zeros((8, 9, 3), np.uint8))[1].tobytes()


def lay(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO)


@pytest.fixture
def predict(monkeypatch):
    """Predicts a folder and returns what failed."""
    return lambda source, output: toy.predict(monkeypatch, source, output)[0].failures


def test_names_that_are_not_utf_8_get_results(predict, tmp_path):
    lay(tmp_path / "in", b"stra\xdfe.png", b"\xe4/b.png", "ok.png")
    assert predict(tmp_path / "in", tmp_path / "out") == []
    for name in (b"stra\xdfe", b"\xe4/b", b"ok"):
        for ending in (b".png", b"_overlay.png"):
            path = os.path.join(os.fsencode(tmp_path), b"out", name + ending)
            assert Path(os.fsdecode(path)).read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").rglob(".*"))
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    names = [json.loads(line).get("name") for line in lines]
    assert os.fsdecode(b"stra\xdfe") in names


@pytest.mark.parametrize("name", ["x" * 246 + ".png", "x" * 240 + ".png", "taken.png"])
def test_what_cannot_be_written_is_one_sentence_and_the_rest_is_done(predict, tmp_path, name):
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
    writer = Writer(tmp_path, toy.INFO, Settings())
    prediction = Prediction(np.ones((8, 9), np.uint8), None)
    photograph = inputs.Photograph(tmp_path / "x.png", "x")
    image = np.zeros((8, 9, 3), np.uint8)
    written = writer.write(Result(photograph, image, prediction, None))
    assert written.outputs == ()
    assert "x.png: no space left on the disk; free some and run again." in written.reason


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


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("x/a.jpg", "x/a.png", "a.png"),
        ("a.png", "a_overlay.bmp", "a_overlay.png"),
        ("a.v2.png", "a.v2.tif", "a.v2.png"),
    ],
)
def test_two_photographs_of_one_name_are_refused_before_anything_is_written(
    predict, tmp_path, first, second, result
):
    source, output = tmp_path / "in", tmp_path / "out"
    lay(source, first, second, *(f"x/{i}.png" for i in range(9)))
    words = rf"{source}/{first} and {Path(second).name} would both give {result}; --keep-suffix"
    with pytest.raises(UserError, match=words):
        predict(source, output)
    assert not output.exists()
    found = inputs.find(str(source), settings=Settings(keep_suffix=True))
    assert {first, second} < {photo.stem for photo in found}


def test_only_results_that_are_written_can_clash(tmp_path):
    lay(tmp_path, "a.png", "a_overlay.png", "b_confidence.png", "b.png")
    settings = Settings(overlay=False)
    assert len(inputs.find(str(tmp_path), settings=settings)) == 4
    with pytest.raises(UserError, match=r"b_confidence\.png"):
        inputs.find(str(tmp_path), settings=dataclasses.replace(settings, confidence=True))


def test_a_name_depends_on_its_own_path_alone(tmp_path):
    lay(tmp_path, "x/a.png", "y/a.png", "y/z/b.c.JPG")
    for source, stems in (
        ("", ["x/a", "y/a", "y/z/b.c"]),
        ("x", ["a"]),
        ("x/a.png", ["a"]),
        ("*/a.png", ["x/a", "y/a"]),
        ("y/**/*.[Jj]*", ["z/b.c"]),
        ("[y]/z/*", ["y/z/b.c"]),
    ):
        found = inputs.find(str(tmp_path / source))
        assert [photo.stem for photo in found] == stems, source
        assert len(found) == len(stems)
        for photo in inputs.find(str(tmp_path / source), settings=Settings(keep_suffix=True)):
            assert f"/{photo.path}".endswith(f"/{photo.stem}")
            assert photo.name == photo.stem


@pytest.mark.parametrize("name", ["a.png", "../elsewhere/a.png"])
def test_a_photograph_is_not_overwritten_by_another_ones_results(predict, tmp_path, name):
    """The folder of the results holds a photograph, or what a photograph is a link to."""
    lay(tmp_path / "in" / "out", name)
    (tmp_path / "in" / "a.bmp").symlink_to(tmp_path / "in" / "out" / name)
    output = (tmp_path / "in" / "out" / name).parent
    with pytest.raises(UserError, match=r"a\.png is among --input and would be overwritten"):
        predict(tmp_path / "in" / "a.bmp", output)
    assert (output / "a.png").read_bytes() == PHOTO


def test_a_video_whose_name_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"\xdf.mp4")
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"\\xdf\.mp4: OpenCV needs a UTF-8 name"):
        video.Video(path)
