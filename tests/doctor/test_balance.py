"""Advice for classes of few pixels, and that what it prints can be pasted."""

import re
import shlex

import cv2
import numpy as np
import pytest

from fastfcn_jax.config.flags import parse
from fastfcn_jax.data.datasets import DatasetInfo
from fastfcn_jax.data.source import Sample
from fastfcn_jax.doctor import adopt, balance, examine

NAMES = ("background", "crack", "sign")


@pytest.mark.parametrize(
    ("counts", "key"),
    [
        ((9800, 100, 100), None),
        ((9801, 100, 99), "class_weights"),
        ((9900, 10, 90), "class_weights"),
        ((99910, 90, 0), "terms"),
        ((100, 0, 0), None),
        ((0, 0, 0), None),
    ],
)
def test_the_rarest_class_decides(counts, key):
    found = balance.advise(NAMES, counts)
    assert len(found) == (key is not None)
    if key:
        assert key in found[0].remedy


def test_the_class_and_the_number_of_others_are_named():
    (found,) = balance.advise(NAMES, (99800, 150, 50))
    assert "class 'sign' has 0.05 % of the labelled pixels, 2 classes less than 1 %" in found.text
    (found,) = balance.advise(NAMES, (0, 99900, 100))
    assert "class 'sign' has 0.1 % of the labelled pixels;" in found.text


@pytest.mark.parametrize("line", [balance.WEIGHTS, balance.TERMS])
def test_the_line_can_be_pasted_and_ends_the_advice(line):
    (word,) = shlex.split(line)
    config = parse("jpu_psp_camvid", [word])
    assert balance.findings(parse("jpu_psp_camvid"), NAMES, (9990, 5, 5))
    assert balance.findings(config, NAMES, (9990, 5, 5)) == []


def test_the_folder_is_told_about_its_rare_class(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"p{number}.jpg"), rng.integers(0, 256, (64, 96, 3), np.uint8))
        label = np.zeros((64, 96), np.uint8)
        label[10:13, 10:20] = 1
        cv2.imwrite(str(tmp_path / f"p{number}_mask.png"), label)
    lines = adopt.adopt(tmp_path)
    (place,) = [i for i, line in enumerate(lines) if "of the labelled pixels" in line]
    assert "class 'class_1' has 0.49 % of the labelled pixels" in lines[place]
    assert lines[place + 1].strip() == balance.WEIGHTS


def test_the_check_of_an_experiment_looks_at_the_training_labels(monkeypatch, capsys):
    class Source:
        info = DatasetInfo("toy", ("a", "b"), np.zeros((2, 3), np.uint8))
        ids = ("x",)

        def __init__(self, rare):
            self.label = np.zeros((50, 50), np.uint8)
            self.label[0, :2] = rare

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Sample("x", np.zeros((50, 50, 3), np.uint8), self.label)

    for name in ("loading", "memory"):
        monkeypatch.setattr(examine, name, lambda *_: [])
    for rare, expected in (({"train": 1, "val": 0}, 1), ({"train": 0, "val": 1}, 0)):
        monkeypatch.setattr(examine.datasets, "load", lambda *a, rare=rare: Source(rare[a[2]]))
        found = examine.examine(parse("jpu_psp_camvid"), samples=5)
        assert len([f for f in found if re.search("'b' has 0.08 %", f.text)]) == expected
