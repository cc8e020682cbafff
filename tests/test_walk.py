"""From a messy folder to predictions, by the commands that each step prints."""

import json
import re
import shlex

import cv2
import messy
import pytest

from fastfcn_jax.__main__ import command

SIZE = (96, 128)
SMALL = [  # a network that compiles in seconds
    "--config.model.base_width=8",
    "--config.model.neck=none",
    "--config.model.output_stride=8",
    "--config.model.head=fcn",
    "--config.model.head_channels=8",
    "--config.model.auxiliary=False",
    "--config.train.steps=3",
    "--config.train.eval_every=3",
]


def lay(root):
    """60 photographs: palette labels beside them, RGB labels in a folder, GIF labels by suffix."""
    for i in range(20):
        messy.put(root / f"phone/IMG_{i:03}.jpg", messy.photo(i, SIZE))
        messy.put(root / f"phone/IMG_{i:03}_mask.png", messy.index(i, SIZE), messy.COLORS)
        messy.put(root / f"drone/images/{i + 20:03}.jpg", messy.photo(i + 20, SIZE))
        messy.put(root / f"drone/labels/{i + 20:03}.png", messy.COLORS[messy.index(i + 20, SIZE)])
        upright = (120, 90)
        messy.put(root / f"gif/{i + 40:03}_sat.png", messy.photo(i + 40, upright))
        messy.put(root / f"gif/{i + 40:03}_mask.gif", messy.index(i + 40, upright), messy.COLORS)


def printed(text: str, command: str) -> list[str]:
    """The arguments of a command that was printed, without `fastfcn`."""
    line = re.search(rf"^ *fastfcn ({command} .*)$", text, re.MULTILINE)
    assert line is not None, text
    return shlex.split(line[1])


@pytest.mark.slow
def test_printed_commands_lead_from_a_messy_folder_to_predictions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "photos")

    def run(words: list[str]) -> str:
        status = command(words[0]).main(words[1:])
        out = capsys.readouterr()
        assert status == 0, out.err
        return out.out

    adopted = run(["doctor", "--folder", "photos"])
    assert "60 photos with a label each" in adopted
    assert "40 colour labels (such as 020.png) get the numbers that the palettes give" in adopted
    assert "48 photos to train on, 12 to validate" in adopted
    assert "nothing prevents a run" in run([*printed(adopted, "doctor --config"), *SMALL])
    trained = run([*printed(adopted, "train"), *SMALL])
    run(printed(trained, "eval"))
    assert (
        json.loads((tmp_path / "runs/photos-small/eval/metrics.json").read_text())["num_images"]
        == 12
    )
    words = printed(trained, "predict")
    run([w.replace("PHOTOS", "photos/drone/images") for w in words])
    labels = cv2.imread(str(tmp_path / "predictions/020.png"), cv2.IMREAD_GRAYSCALE)
    assert labels is not None
    assert labels.shape == SIZE
    assert len(list((tmp_path / "predictions").glob("*_overlay.png"))) == 20
