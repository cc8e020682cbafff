"""The Python interface: what a model says of itself, and its functions in a notebook."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

import fastfcn_jax
from fastfcn_jax import api, models
from fastfcn_jax.checkpoints import model_folder, orbax_store
from fastfcn_jax.config import experiment
from fastfcn_jax.data import datasets
from fastfcn_jax.doctor import checks, examine
from fastfcn_jax.errors import UserError

INFO = datasets.info("cityscapes", "")
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    config = tiny.config()
    config.data.test_scale = (0, 0)
    network = models.build(config.model, 19)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    path = tmp_path_factory.mktemp("model") / "run"
    card = model_folder.model_card(config, INFO, {})
    model_folder.save_model(path, variables, card, step=700)
    orbax_store.set_score(model_folder.step_folder(path, 700), 71.234)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return api.load(folder)


def test_dir_lists_what_there_is():
    listed = dir(fastfcn_jax)
    for name in (
        *("load", "load_pth", "build", "Model", "Prediction", "UserError"),
        *("train", "evaluate", "predict", "convert", "export", "serve", "doctor", "bench"),
    ):
        assert name in listed
        assert inspect.getdoc(inspect.unwrap(getattr(fastfcn_jax, name))), name
    assert "TYPE_CHECKING" not in listed


def test_a_model_says_what_it_is(model, folder):
    shown = repr(model)
    count = sum(int(np.prod(w.shape)) for w in _leaves(model.variables["params"]))
    for part in (
        f"Model {folder}\n",
        "resnet50, JPU, PSP head (mmseg lineage)",
        "19 classes (cityscapes): road, sidewalk, building",
        "step 700, mIoU 71.23 % on its validation images",
        f"{count / 1e6:.1f} million parameters",
        "protocol single: ",
    ):
        assert part in shown


def test_a_size_is_announced_once_for_each_program(folder, capsys):
    model = api.load(folder)
    for _ in range(2):
        model(IMAGE)
    assert capsys.readouterr().err == "compiling for 40x60 (once)\n"
    model.predict(IMAGE)
    model.predict_batch([IMAGE, IMAGE[:32]])
    model.predict_batch(np.stack([IMAGE, IMAGE]))
    assert capsys.readouterr().err == "compiling for 40x60 (once)\ncompiling for 32x60 (once)\n"
    model(IMAGE[:33, :50])  # from the third size on, sizes share programs
    model(IMAGE[:34, :50])
    assert capsys.readouterr().err == "compiling for sizes up to 64x64 (once)\n"


def test_quiet_says_nothing_and_warmup_compiles_ahead(folder, capsys):
    quiet = api.load(folder, quiet=True).warmup((40, 60))
    quiet.predict(IMAGE)
    assert capsys.readouterr().err == ""
    model = api.load(folder).warmup((40, 60), [32, 60])
    assert len(re.findall("compiling for 32x60", capsys.readouterr().err)) == 2
    model(IMAGE), model.predict(IMAGE), model(IMAGE[:32])
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"40 is not a size; .*model\.warmup\(\(360, 480\)\)"):
        model.warmup(40, 60)


def test_a_prediction_knows_its_photograph_and_classes(model):
    labels, confidence = prediction = model.predict(IMAGE)
    np.testing.assert_array_equal(labels, model(IMAGE))
    assert confidence.shape == labels.shape
    assert isinstance(prediction, fastfcn_jax.Prediction)
    np.testing.assert_array_equal(prediction.overlay(), model.overlay(IMAGE))
    ((_, streamed),) = model.stream([("a", IMAGE)])
    assert list(streamed.shares()) == list(prediction.shares())


def test_a_stacked_array_is_a_batch(model):
    stack = np.stack([IMAGE, 255 - IMAGE])
    found = model.predict_batch(stack)
    assert [labels.shape for labels in found] == [(40, 60)] * 2
    np.testing.assert_array_equal(found[1], model(255 - IMAGE))
    with pytest.raises(UserError, match="takes several photographs, not one ndarray"):
        model.predict_batch(IMAGE)


def test_the_doctor_checks_a_configuration_by_name(monkeypatch, capsys):
    found = [checks.Finding("ok", "all is well")]
    asked = []

    def look(config, **given):
        asked.append((config.train.steps, given))
        return found

    monkeypatch.setattr(examine, "examine", look)
    assert fastfcn_jax.doctor("demo", samples=3, workdir="~/runs") is True
    assert "all is well" in capsys.readouterr().out
    found.append(checks.Finding("problem", "no disk", "buy one"))
    config = experiment.load("demo")
    config.train.steps = 7
    assert fastfcn_jax.doctor(config) is False
    (steps, given), (own, _) = asked
    assert (steps, own) == (experiment.load("demo").train.steps, 7)
    assert (given["samples"], given["workdir"]) == (3, Path.home() / "runs")


def test_the_doctor_prepares_a_folder(tmp_path, capsys):
    for number in range(5):
        photo = np.full((40, 60, 3), 30 * number, np.uint8)
        Image.fromarray(photo).save(tmp_path / f"p{number}.jpg")
        label = np.zeros((40, 60), np.uint8)
        label[: 10 + number] = 1
        Image.fromarray(label).save(tmp_path / f"p{number}_mask.png")
    assert fastfcn_jax.doctor(folder=str(tmp_path), split="fifth") is True
    assert "5 photos with a label each" in capsys.readouterr().out
    assert (tmp_path / "fastfcn_config.py").is_file()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give a configuration or a folder of photographs, for example"),
        ({"config": "demo", "folder": "photos"}, "give a configuration or a folder"),
        ({"config": "demo", "split": "fifth"}, "split: only with folder="),
    ],
)
def test_the_doctor_refuses_what_does_not_go_together(given, words):
    with pytest.raises(UserError, match=words):
        fastfcn_jax.doctor(**given)


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]
