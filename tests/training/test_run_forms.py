"""A run takes the forms that were measured on this device, and keeps those that it began with."""

import json

import jax
import pytest
from tiny import config

from fastfcn_jax import api, measured_forms, replay, runtime
from fastfcn_jax.models.ops.forms import Forms
from fastfcn_jax.training import loop, run_forms, setup


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder in which nothing was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def measure(*plain):
    return measured_forms.write("float32", {"plain": list(plain)})


def decided(workdir, c=None):
    """The forms of a start, and what it says."""
    said = []
    return run_forms.decided(c or config(), workdir, said.append).model.forms, said


def stored_forms(path):
    return json.loads(path.read_text())["config"]["model"]["forms"]


@pytest.mark.usefixtures("cache")
def test_on_a_cpu_without_a_measurement_nothing_is_said(tmp_path):
    assert decided(tmp_path) == ("fast", [])


@pytest.mark.usefixtures("cache")
def test_on_another_device_a_new_run_recommends_to_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    forms, (said,) = decided(tmp_path)
    assert forms == "fast"
    assert "nobody has measured" in said
    assert "`fastfcn bench --tune --config NAME`" in said
    assert "\n" not in said
    path = measure()
    forms, (said,) = decided(tmp_path)
    assert forms == "fast"
    assert f"as measured on this cpu ({path})" in said


@pytest.mark.usefixtures("cache")
def test_all_processes_take_what_the_first_measured(tmp_path, monkeypatch):
    measure("1x1")
    first = json.dumps(["fast without resize", "from process 0"])
    monkeypatch.setattr(runtime, "gather", lambda text: [first, text] if text else ["", ""])
    assert decided(tmp_path) == ("fast without resize", ["from process 0"])


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model", "cache")
def test_a_run_keeps_its_forms_when_the_measurement_changes(tmp_path, monkeypatch, capsys):
    used = []
    make = setup.step.make_train_step

    def spy(*arguments, forms, **named):
        used.append(forms)
        return make(*arguments, forms=forms, **named)

    monkeypatch.setattr(setup.step, "make_train_step", spy)
    path, run = measure("resize"), tmp_path / "run"
    loop.train(config(steps=2, eval_every=0), run)
    said = capsys.readouterr().out
    assert f"forms: fast without resize, as measured on this cpu ({path})" in said
    assert stored_forms(run / "run.json") == "fast without resize"
    assert stored_forms(run / "model.json") == "auto"  # decided by the device that predicts

    measure("1x1")
    loop.train(config(steps=4, eval_every=0), run)
    said = capsys.readouterr().out
    assert "forms: fast without resize, as this run began; for a new run they would be" in said
    assert "train.steps: 2 -> 4\n" in said  # and no other change
    path.unlink()
    assert replay.replay(run, steps=2, start=2) == 0
    assert "forms: fast without resize, as in the run" in capsys.readouterr().out
    assert used == [Forms("fast", frozenset(["resize"]))] * 3

    measure("1x1")
    api.load(run)
    assert "forms: fast without 1x1" in capsys.readouterr().err
    asked = config(steps=4, eval_every=0)
    asked.model.forms = "fast"
    assert decided(run, asked) == ("fast", [])
