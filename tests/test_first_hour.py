"""What a newcomer with nothing sees first: drawn photographs and the model in the package."""

import numpy as np
import pytest
from PIL import Image

from fastfcn_jax.__main__ import command
from fastfcn_jax.data.datasets import camvid, street_scene


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer") / "my streets"
    assert command("demo").main(["--draw", str(folder)]) == 0
    return folder


def test_drawings_come_with_labels(streets):
    photos = sorted(path.stem for path in (streets / "photos").iterdir())
    assert photos == sorted(path.stem for path in (streets / "labels").iterdir())
    assert len(photos) == 30
    assert (streets / "classes.txt").read_text().split() == list(street_scene.NAMES)


def test_drawing_replaces_nothing_and_trains_nothing(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert command("demo").main(["--draw", str(tmp_path)]) == 2
    assert "in use; give a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["photos"]
    assert command("demo").main(["--draw", str(tmp_path / "other"), "--steps", "3"]) == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_newcomer_labels_a_drawing(streets, tmp_path):
    """Most of sky, trees and houses is found, as the page says."""
    photos = str(streets / "photos" / "street_0[0-3].jpg")
    words = [
        "--checkpoint",
        "camvid-small",
        "--input",
        photos,
        "--output",
        str(tmp_path),
        "--legend",
    ]
    assert command("predict").main(words) == 0
    files = sorted(tmp_path.glob("*_?[0-9].png"))
    seen = np.concatenate([np.array(Image.open(file)) for file in files])
    drawn = np.concatenate([np.array(Image.open(streets / "labels" / f.name)) for f in files])
    for number, name in (
        (street_scene.SKY, "Sky"),
        (street_scene.TREE, "Tree"),
        (street_scene.BUILDING, "Building"),
    ):
        assert np.mean(seen[drawn == number] == camvid.INFO.class_names.index(name)) > 0.5, name
    assert len(list(tmp_path.glob("*_overlay.png"))) == 4
