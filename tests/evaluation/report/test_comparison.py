"""`fastfcn report`: runs over one another, intervals of stored counts, settings that differ."""

import json
import re

import numpy as np
import pytest

import fastfcn_jax
from fastfcn_jax import __main__ as door
from fastfcn_jax.config import base, experiment
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.evaluation.report import comparison, paired, stored_runs

NAMES = ("road", "<sky>")


def result(quality: float, images: int = 20) -> Result:
    """An evaluation in which `quality` of each image is right, more or less."""
    rng = np.random.default_rng(0)
    right = (1000 * (quality + rng.uniform(-0.1, 0.1, (images, 2)))).astype(np.int64)
    counts = np.stack([right, np.full_like(right, 1000), np.full_like(right, 1000)], axis=1)
    total = right.sum(axis=0)
    missed = 1000 * images - total
    matrix = np.array([[total[0], missed[0]], [missed[1], total[1]]])
    ids = tuple(f"image {i}" for i in range(images))
    return Result("single", NAMES, matrix, ids, counts, images)


def write_run(folder, quality, lr=0.01, step=20):
    """A training's folder as this version leaves it."""
    folder.mkdir()
    found = result(quality)
    records = [
        {"kind": "train", "step": 10, "loss": 2.0, "loss_decode": 1.5, "loss_auxiliary": 0.5,
         "learning_rate": lr, "losses": [2.0]},
        {"kind": "eval", "step": 10, **result(quality + 0.04).metrics()},
        {"kind": "eval", "step": step, **found.metrics()},
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    config = base.get_config()
    config.optim.lr = lr
    card = {"config": experiment.to_json(config), "starts": [{"step": 0}], "data": {"name": "toy"}}
    (folder / "run.json").write_text(json.dumps(card))
    (folder / "model.json").write_text(json.dumps({"config": card["config"]}))
    paired.save(folder, found, step)
    return folder


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / "good", 0.8), write_run(tmp_path / "bad", 0.7, lr=0.02)]


def test_scores_have_intervals_and_paired_differences(runs, tmp_path, capsys):
    lines = fastfcn_jax.report(runs, tmp_path / "page.html")
    good, bad = (result(quality) for quality in (0.8, 0.7))
    assert [line.name for line in lines] == ["good", "bad"]
    assert lines[0].miou == pytest.approx(good.scores.miou)
    assert lines[0].low < lines[0].miou < lines[0].high
    assert lines[0].best == pytest.approx(result(0.84).scores.miou)
    assert lines[0].best_step == 10
    assert lines[0].to_first is None
    assert lines[1].to_first == paired.compare(bad, paired.of_result(good))
    said = capsys.readouterr().out
    assert f"{lines[1].to_first.value:+.2f}" in said
    assert "note" not in said
    text = (tmp_path / "page.html").read_text()
    assert f"{lines[0].low:.1f} to {lines[0].high:.1f}" in text
    assert "<sky>" not in text
    assert "&lt;sky&gt;" in text
    for chart in ("Training loss", "Loss: decode", "Learning rate", "Validation mIoU", "road"):
        drawn = re.search(rf"<figcaption>{chart}</figcaption>.*?</figure>", text, re.S)[0]
        assert re.findall(r'data-name="(\w+)"', drawn) == ["good", "bad"]


def test_only_settings_that_differ_are_listed(runs):
    found = stored_runs.read(runs)
    assert stored_runs.differing_keys(found) == [("optim.lr", ["0.01", "0.02"])]
    assert stored_runs.differing_facts(found) == []


def test_a_run_of_an_older_version_is_compared_too(runs, tmp_path, capsys):
    """Records without times, parts and classes, no counts, a configuration with fewer keys."""
    old = runs[1]
    (old / paired.NAME).unlink()
    (old / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 10, "loss": 2.0}\n{"kind": "eval", "step": 20, "mIoU": 41.5}\n'
        '{"kind": "eval", "step": 30, "mIoU": null, "per_class": {"road": 3}}\n'
    )
    card = json.loads((old / "run.json").read_text())
    del card["config"]["model"]["forms"], card["config"]["eval"], card["starts"]
    (old / "run.json").write_text(json.dumps(card))
    lines = comparison.report(runs, tmp_path / "page.html")
    assert (lines[1].miou, lines[1].best_step) == (41.5, 20)
    assert np.isnan(lines[1].low)
    assert lines[1].to_first is None
    said = capsys.readouterr().out.replace("\n", " ")
    assert "bad has no counts.npz of its evaluation, so no interval; fastfcn eval" in said
    assert stored_runs.differing_keys(stored_runs.read(runs)) == [("optim.lr", ["0.01", "0.02"])]
    comparison.report([old], tmp_path / "one.html")
    assert "41.50" in (tmp_path / "one.html").read_text()


def test_counts_of_another_step_are_not_taken_for_those_of_the_last(runs):
    paired.save(runs[0], result(0.5), 10)
    (run,) = stored_runs.read(runs[:1])
    assert run.scored.counts is None
    assert run.scored.miou == pytest.approx(result(0.8).scores.miou)


def test_an_evaluation_has_the_configuration_of_its_run(runs, tmp_path, capsys):
    """`fastfcn eval` of a run without counts is taken for its score; it can also be named."""
    folder = runs[0] / "eval"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(result(0.9).metrics()))
    paired.save(folder, result(0.9))
    (runs[0] / paired.NAME).unlink()
    found = stored_runs.read([runs[0], folder])
    assert [run.name for run in found] == ["good", "eval"]
    assert [run.scored.miou for run in found] == pytest.approx(2 * [result(0.9).scores.miou])
    assert found[1].config == found[0].config
    assert found[1].history == []
    paired.save(folder, result(0.9, images=5))
    lines = comparison.report([runs[1], folder / "metrics.json"], tmp_path / "page.html")
    assert lines[1].to_first.images == 5
    assert "that on 5 common images" in capsys.readouterr().out


def test_names_tell_runs_of_one_name_apart(tmp_path):
    folders = [tmp_path / part for part in ("a/run", "b/run", "c")]
    assert stored_runs.names(folders) == ["a/run", "b/run", "c"]
    with pytest.raises(UserError, match="is named twice"):
        stored_runs.names([folders[0], tmp_path / "b" / ".." / "a" / "run"])


def test_what_is_no_run_is_refused_before_anything_is_written(runs, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    page = tmp_path / "page.html"

    def refused(*words):
        assert door.command("report").main([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "for example fastfcn report runs/a runs/b" in refused()
    assert "empty: has neither metrics.jsonl nor metrics.json" in refused(empty, "--output", page)
    assert "absent: no such folder" in refused(tmp_path / "absent")
    assert "ends with .html" in refused(runs[0], "--output", tmp_path / "page.png")
    assert "cannot be written" in refused(runs[0], "--output", tmp_path / "absent" / "page.html")
    (runs[1] / "run.json").write_text("[]")
    assert "run.json: must be an object" in refused(*runs, "--output", page)
    assert not page.exists()
