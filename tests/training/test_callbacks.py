"""Callbacks and MLflow: what they are told, what their faults do, how they stop a run."""

import json
import re
import sys
from pathlib import Path

import pytest
from tiny import config, history

from fastfcn_jax import Callback
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import callbacks, loop, start

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_model")]


class Listener(Callback):
    def __init__(self):
        self.heard = []

    def on_start(self, training):
        self.heard.append(("start", training.start_step, training.steps))
        assert training.class_names[0] == "road"
        assert training.config["train"]["batch_size"] == 4

    def on_log(self, record):
        self.heard.append(("log", record["step"]))
        assert record["loss"] > 0
        record["losses"].clear()  # its own copy

    def on_validation(self, record):
        self.heard.append(("validation", record["step"]))
        record["mIoU"] = 0.0

    def on_checkpoint(self, step, folder):
        model_folder.verify(folder.parents[1], step)  # complete, on the disk
        self.heard.append(("checkpoint", step))

    def on_end(self, step, outcome):
        self.heard.append(("end", step, outcome))


class Faulty(Callback):
    calls = 0

    def on_log(self, record):
        self.calls += 1
        raise ZeroDivisionError("a bug of the user's")


class Stops:
    """Not a subclass: the methods decide."""

    def on_start(self, training):
        self.stop = training.stop

    def on_log(self, record):
        self.stop()


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """A client of a store in files, which the training uses too."""
    client = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return client


def of_the_docs(monkeypatch):
    """The callback that the page defines; its training is not started."""
    page = Path(__file__).parents[2] / "docs" / "training.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    given = []
    monkeypatch.setattr(start, "train", lambda config, workdir, callbacks: given.extend(callbacks))
    exec(code, {})
    (found,) = given
    return found


def test_callbacks_hear_of_everything_and_their_faults_do_not_end_the_run(
    tmp_path, capfd, monkeypatch
):
    listener, faulty, documented = Listener(), Faulty(), of_the_docs(monkeypatch)
    assert loop.train(config(), tmp_path / "run", [faulty, listener, documented]) == 0
    assert listener.heard == [
        ("start", 0, 12),
        *(("checkpoint", 4), ("log", 5), ("validation", 6), ("checkpoint", 6)),
        *(("checkpoint", 8), ("log", 10), ("log", 12), ("validation", 12), ("checkpoint", 12)),
        ("end", 12, "finished"),
    ]
    assert faulty.calls == 1
    out, told = capfd.readouterr()
    assert f"best so far, {documented.best:.2f} %" in out
    assert "ZeroDivisionError: a bug of the user's" in told
    assert "warning: the callback Faulty failed in on_log (above) and is not called again" in told
    assert len(history(tmp_path / "run")[0]["losses"]) == 5  # not what the listener left
    assert history(tmp_path / "run", "eval")[-1]["mIoU"] > 0


def test_a_callback_stops_a_run_and_mlflow_goes_on_with_it(tmp_path, mlflow, capsys):
    workdir, listener = tmp_path / "my_run", Listener()
    assert loop.train(config(mlflow=True), workdir, [Stops(), listener]) == 0
    stopped = listener.heard[-1][1]
    assert listener.heard[-1] == ("end", stopped, "stopped")
    assert 5 <= stopped < 10
    assert f"stopped by a callback after step {stopped}" in capsys.readouterr().out
    run_id = json.loads((workdir / "mlflow.json").read_text())["run"]
    client = mlflow()
    found = client.get_run(run_id)
    assert (found.info.run_name, found.info.status) == ("my_run", "KILLED")
    assert found.data.params["train.steps"] == "12"
    assert loop.train(config(mlflow=True), workdir, [listener]) == 0
    assert ("start", stopped, 12) in listener.heard
    assert json.loads((workdir / "mlflow.json").read_text())["run"] == run_id
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    logged = client.get_metric_history(run_id, "train/loss")
    assert {(m.step, m.value) for m in logged} == {(r["step"], r["loss"]) for r in history(workdir)}
    scores = {m.step: m.value for m in client.get_metric_history(run_id, "eval/mIoU")}
    assert scores == {r["step"]: r["mIoU"] for r in history(workdir, "eval")}
    assert "eval/IoU/road" in found.data.metrics


def test_a_failed_run_is_told(tmp_path, monkeypatch):
    def fails(*_):
        raise UserError("step 3: loss nan.")

    monkeypatch.setattr(loop, "_train", fails)
    listener = Listener()
    with pytest.raises(UserError, match="loss nan"):
        loop.train(config(), tmp_path, [listener])
    assert listener.heard == [("end", 0, "failed")]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("Listener", r"give a list, callbacks=\[…\]"),
        ([Listener], r"Listener is a class; give an object of it, Listener\(\)"),
        ([print], "has none of the methods on_start, on_log"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        loop.train(config(), tmp_path / "run", given)
    assert not (tmp_path / "run").exists()


def test_mlflow_that_is_missing_or_does_not_answer_is_refused(tmp_path, monkeypatch, mlflow):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(UserError, match="Set MLFLOW_TRACKING_URI to the address of an MLflow"):
        loop.train(config(mlflow=True), tmp_path / "a")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"needs the package: pip install 'fastfcn-jax\[mlflow\]'"):
        loop.train(config(mlflow=True), tmp_path / "a")
    assert not (tmp_path / "a" / "metrics.jsonl").exists()
    assert not (tmp_path / "a" / "mlflow.json").exists()


def test_only_listeners_to_checkpoints_make_the_training_wait():
    assert callbacks.Callbacks([Faulty(), Listener()]).watch_checkpoints
    assert not callbacks.Callbacks([Faulty(), Stops()]).watch_checkpoints
