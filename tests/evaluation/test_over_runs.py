"""Means over seeds from stored scores."""

import json
import statistics

import pytest

from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import over_runs
from fastfcn_jax.evaluation.__main__ import COMMAND


def write(folder, miou, protocol="single", seed=0, lr=0.01, classes=("road", "never")):
    (folder / "eval").mkdir(parents=True)
    metrics = {
        "protocol": protocol,
        "num_images": 7,
        "mIoU": miou,
        "mAcc": miou + 5,
        "aAcc": None,
        "per_class": {name: {"IoU": None if name == "never" else miou} for name in classes},
    }
    (folder / "eval" / "metrics.json").write_text(json.dumps(metrics))
    card = {"config": {"seed": seed, "optim": {"lr": lr}, "data": {"root": str(folder)}}}
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_mean_and_sample_deviation(tmp_path, capsys):
    values = (40.0, 42.5, 41.0)
    runs = [write(tmp_path / str(i), value, seed=i) for i, value in enumerate(values)]
    runs[1] = runs[1] / "eval"  # a workdir, the folder of the scores, the file
    runs[2] = runs[2] / "eval" / "metrics.json"
    found = over_runs.summarize(runs)
    assert found.scores["mIoU"].mean == pytest.approx(statistics.mean(values))
    assert found.scores["mIoU"].deviation == pytest.approx(statistics.stdev(values))
    assert found.scores.keys() == {"mIoU", "mAcc"}
    assert found.classes["road"].values == values
    assert found.classes["never"] is None
    assert found.notes == ()
    assert COMMAND.main(["--mean", *map(str, runs)]) == 0
    said = capsys.readouterr().out
    assert "mIoU   41.17 ± 1.26   (40.00, 42.50, 41.00)" in said
    assert "3 runs, 7 images, protocol single" in said


def test_other_settings_than_the_seed_are_named(tmp_path):
    runs = [write(tmp_path / str(i), 40.0, seed=i, lr=0.01 * (i + 1)) for i in range(2)]
    (note,) = over_runs.summarize(runs).notes
    assert note.endswith("differs between the runs: optim.lr")


def test_runs_that_do_not_compare_are_refused(tmp_path):
    one = write(tmp_path / "1", 40.0)
    broken = write(tmp_path / "4", 41.0)
    (broken / "eval" / "metrics.json").write_text("{}")
    for runs, says in (
        (
            [one, write(tmp_path / "2", 41.0, "ms_flip")],
            "protocol of .*2/eval/.* differ",
        ),
        ([one, write(tmp_path / "3", 41.0, classes=("road", "sky"))], "classes of .*3/eval"),
        ([one, broken], "is no metrics.json with scores"),
        ([one], "two runs or more"),
        ([one, one / "eval"], "is given twice"),
        ([one, tmp_path / "none"], "has no metrics.json"),
    ):
        with pytest.raises(UserError, match=says):
            over_runs.summarize(runs)


def test_the_command_needs_a_checkpoint_or_runs(tmp_path, capsys):
    assert COMMAND.main([]) == 2
    assert "--checkpoint is missing" in capsys.readouterr().err
    run = str(write(tmp_path / "1", 40.0))
    assert COMMAND.main(["--checkpoint", run, "--mean", run]) == 2
    assert "--mean evaluates nothing" in capsys.readouterr().err
