"""Renaming a class in a run and its model; the run can still be resumed."""

import json

import numpy as np
import pytest
from layouts import sentence

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.checkpoints.rename_class import rename_class
from fastfcn_jax.config.__main__ import COMMAND
from fastfcn_jax.config.base import get_config
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.training import run_card, workdir


@pytest.fixture
def run(tmp_path):
    names = ["road", "class_1", "sky"]
    info = DatasetInfo("folder", tuple(names), np.eye(3, dtype=np.uint8))
    card = model_folder.model_card(get_config(), info, {})
    (tmp_path / "model.json").write_text(json.dumps(card))
    (tmp_path / "run.json").write_text(json.dumps({"data": {"classes": names}, "starts": [1]}))
    return tmp_path


def test_a_class_is_renamed_in_the_run_and_its_model(run):
    lines = rename_class(run, "class_1", "grass")
    assert json.loads((run / "model.json").read_text())["dataset"]["class_names"] == [
        "road",
        "grass",
        "sky",
    ]
    content = json.loads((run / "run.json").read_text())
    assert content == {"data": {"classes": ["road", "grass", "sky"]}, "starts": [1]}
    assert "class 1 is 'grass', was 'class_1'" in lines[0]


def test_a_class_of_a_running_training_is_not_renamed(run, capsys):
    with workdir.hold(run):
        assert COMMAND.main(["rename-class", str(run), "sky", "air"]) == 2
    assert f"another training is running in {run}" in capsys.readouterr().err
    assert COMMAND.main(["rename-class", str(run), "sky", "air"]) == 0


def test_a_class_is_renamed_in_a_converted_model(run):
    (run / "run.json").unlink()
    rename_class(run, "sky", "air")
    assert not (run / "run.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("river", "x", "no class 'river'; it has road, class_1, sky"),
        ("road", "sky", "a class 'sky' already"),
        ("road", " ", "not a class name"),
    ],
)
def test_bad_names_and_folders_are_refused(run, old, new, text):
    before = (run / "model.json").read_bytes()
    assert text in sentence(lambda: rename_class(run, old, new))
    assert (run / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    ("now", "may_resume"),
    [
        (["road", "grass", "sky"], True),
        (["class_1", "road", "sky"], False),
        (["road", "sky", "class_1"], False),
        (["road", "grass", "class_1"], False),
    ],
)
def test_resuming_accepts_a_renamed_class_but_not_another_order(now, may_resume):
    began = {"data": {"classes": ["road", "class_1", "sky"]}}
    if may_resume:
        run_card.check_classes(began, {"data": {"classes": now}})
    else:
        text = sentence(lambda: run_card.check_classes(began, {"data": {"classes": now}}))
        assert "put the classes back in their order" in text
