"""The training loop with a three-layer model: its output, resuming, errors and crashes."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import config, history, losses

from fastfcn_jax import files, replay
from fastfcn_jax.checkpoints import model_folder, orbax_store
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.report import paired
from fastfcn_jax.training import checkpointer, loop, metrics_log, run_card, step

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("tiny_model")


def test_a_run_writes_all_its_files(tmp_path, capsys):
    assert loop.train(config(pictures=2), tmp_path) == 0
    train, evaluations = history(tmp_path), history(tmp_path, "eval")
    assert [r["step"] for r in train] == [5, 10, 12]
    assert [len(r["losses"]) for r in train] == [5, 5, 2]
    assert train[0]["loss"] == pytest.approx(np.mean(train[0]["losses"]))
    assert train[0]["loss"] == pytest.approx(
        train[0]["loss_decode"] + train[0]["loss_auxiliary"], rel=1e-5
    )
    assert train[-1]["learning_rate"] == pytest.approx(1e-4)
    assert [r["step"] for r in evaluations] == [6, 12]
    assert len(list((tmp_path / "pictures" / "step_00000012").glob("*.png"))) == 2
    assert model_folder.load_model(tmp_path, "latest").step == 12
    card = json.loads((tmp_path / "run.json").read_text())
    assert card["config"]["train"]["steps"] == 12
    assert card["data"]["samples"] == 512
    assert len(card["starts"]) == 1
    assert all(record["time"] >= card["starts"][0]["time"] for record in [*train, *evaluations])
    variables = model_folder.load_model(tmp_path, "latest").variables
    assert card["parameters"] == sum(x.size for x in jax.tree.leaves(variables["params"]))
    counts = paired.read(tmp_path)
    assert (counts.step, len(counts.ids), len(counts.class_names)) == (12, 4, 9)
    right = counts.counts.sum(axis=0)
    iou = 100 * right[0] / np.maximum(right[1] + right[2] - right[0], 1)
    assert evaluations[-1]["per_class"]["road"]["IoU"] == pytest.approx(iou[0])
    out = capsys.readouterr().out
    assert "images/s  data wait" in out
    assert "compiling the training step" in out
    tags = tensorboard_tags(tmp_path)
    assert {"train/loss", "train/learning_rate", "eval/mIoU", "eval/IoU/road"} <= tags["scalars"]
    assert len(tags["images"]) == 2


def tensorboard_tags(workdir):
    """The tags in an event file, whose records are (length, its CRC, an Event, its CRC)."""
    from tensorboardX.proto import event_pb2

    (path,) = (workdir / "tensorboard").glob("events*")
    content, tags = path.read_bytes(), {"scalars": set(), "images": set()}
    while content:
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            tags["images" if value.HasField("image") else "scalars"].add(value.tag)
        content = content[16 + length :]
    return tags


@pytest.mark.slow
def test_the_log_of_a_resumed_run_is_continuous(tmp_path):
    loop.train(config(), tmp_path / "alone")
    loop.train(config(steps=12), tmp_path / "twice")
    # As if it had been killed after step 12 without the checkpoint: its records are still there.
    (tmp_path / "twice/checkpoints/12").rename(tmp_path / "gone")
    assert model_folder.finished_steps(tmp_path / "twice")[-1] == 8
    loop.train(config(), tmp_path / "twice")
    assert losses(tmp_path / "twice") == losses(tmp_path / "alone")
    assert [r["step"] for r in history(tmp_path / "twice")] == [5, 10, 12]
    scores = [[r["mIoU"] for r in history(tmp_path / n, "eval")] for n in ("alone", "twice")]
    assert scores[0] == scores[1]
    verified = [model_folder.verify(tmp_path / n, 12) for n in ("alone", "twice")]
    assert verified[0] == verified[1]
    starts = run_card.read(tmp_path / "twice")["starts"]
    assert [start["step"] for start in starts] == [0, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"nesterov": True, "schedule": "cos"},
        {"name": "adamw", "schedule": "one_cycle", "decay_norms": False},
        {"name": "lamb", "schedule": "step", "step_every": 2, "groups": ("backbone/* lr=0.5",)},
    ],
)
def test_every_optimiser_resumes_to_the_same_bits(tmp_path, changes):
    c = config(steps=6, save_every=3, eval_every=0)
    c.optim.update(**changes)
    loop.train(c, tmp_path / "alone")
    loop.train(c, tmp_path / "twice")
    shutil.rmtree(tmp_path / "twice/checkpoints/6")
    loop.train(c, tmp_path / "twice")
    assert losses(tmp_path / "twice") == losses(tmp_path / "alone")
    verified = [model_folder.verify(tmp_path / n, 6) for n in ("alone", "twice")]
    assert verified[0] == verified[1]
    c.optim.name = "adamw" if c.optim.name == "sgd" else "sgd"
    with pytest.raises(UserError, match=r"config\.optim\.name"):
        loop.train(c, tmp_path / "alone")


@pytest.mark.slow
def test_a_kill_between_a_score_and_its_checkpoint_loses_no_best(tmp_path):
    loop.train(config(steps=4, eval_every=4), tmp_path)
    folder = model_folder.step_folder(tmp_path, 4)
    unscored = orbax_store.signed({**orbax_store.read_meta(folder), "score": None})
    files.write_json(folder / "meta/metadata", unscored)
    shutil.rmtree(folder / "metrics")
    assert model_folder.best_step(tmp_path) is None
    loop.train(config(steps=4, eval_every=4), tmp_path)
    assert len(history(tmp_path, "eval")) == 1  # not repeated, because its record exists
    assert orbax_store.read_meta(folder)["score"] == history(tmp_path, "eval")[0]["mIoU"]


@pytest.mark.slow
def test_replay_confirms_every_bit_or_names_the_first_step_that_differs(tmp_path, capsys):
    loop.train(config(), tmp_path)
    assert replay.replay(tmp_path, steps=4, start=8) == 0
    with pytest.raises(UserError, match="nothing to replay after step 12"):
        replay.replay(tmp_path, steps=1, start=12)
    assert "bit-identical to the log, and so are the arrays of step 12" in capsys.readouterr().out
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (record,) = (r for r in lines if r["kind"] == "train" and r["step"] == 10)
    record["losses"][-1] = math.nextafter(record["losses"][-1], 0)  # step 10
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert replay.replay(tmp_path, steps=4, start=8) == 1
    assert "first difference at step 10" in capsys.readouterr().out


@pytest.mark.slow
def test_a_configuration_that_does_not_fit_names_its_keys(tmp_path):
    loop.train(config(steps=4, eval_every=0), tmp_path)
    other = config(steps=4, eval_every=0, ema_decay=0.9)
    other.model.head = "aspp"
    with pytest.raises(UserError, match=r"config\.model\.head: 'psp' -> 'aspp'.*ema_decay"):
        loop.train(other, tmp_path)


@pytest.mark.slow
def test_classes_in_another_order_are_refused_and_a_finished_run_says_so(tmp_path, capsys):
    loop.train(config(steps=2, eval_every=0), tmp_path)
    loop.train(config(steps=2, eval_every=0), tmp_path)
    assert "train.steps=2 are done, nothing is left to train" in capsys.readouterr().out
    card = json.loads((tmp_path / "run.json").read_text())
    card["data"]["classes"].reverse()
    (tmp_path / "run.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"class 0 of the data was '.*' when this run began"):
        loop.train(config(steps=4, eval_every=0), tmp_path)


@pytest.mark.slow
def test_harmless_changes_are_reported_and_accepted(tmp_path, capsys):
    loop.train(config(steps=4, eval_every=0), tmp_path)
    loop.train(config(steps=6, eval_every=0), tmp_path)
    assert "changed since this run began: train.steps: 4 -> 6" in capsys.readouterr().out
    assert len(losses(tmp_path)) == 6


def explode(monkeypatch):
    """Makes the loss infinite, independent of the weights."""
    total_loss = step.losses.total_loss

    def infinite(*args, **kwargs):
        total, parts = total_loss(*args, **kwargs)
        return total * np.float32(np.inf), parts

    monkeypatch.setattr(step.losses, "total_loss", infinite)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_the_samples_named(tmp_path, monkeypatch):
    loop.train(config(steps=4, eval_every=0), tmp_path)
    explode(monkeypatch)
    with pytest.raises(UserError) as caught:
        loop.train(config(steps=9, eval_every=0), tmp_path)
    message = str(caught.value)
    assert message.startswith("step 5: loss inf")
    assert message.count("train_") == 4  # the four samples of the batch
    assert f"The last good checkpoint is that of step 4 in {tmp_path}" in message
    assert model_folder.finished_steps(tmp_path) == [4]


@pytest.mark.slow
def test_the_error_that_ended_a_run_is_not_hidden_by_a_full_disk(tmp_path, monkeypatch):
    explode(monkeypatch)
    close = checkpointer.Checkpoints.close

    def full(checkpoints):
        close(checkpoints)
        raise UserError("no space left on the disk; free some and run again.")

    monkeypatch.setattr(checkpointer.Checkpoints, "close", full)
    with pytest.raises(UserError, match=r"^step 1: loss inf.*There is no checkpoint yet in "):
        loop.train(config(steps=4, eval_every=0), tmp_path)


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_on_request(tmp_path, monkeypatch, capsys):
    loop.train(config(steps=4, eval_every=0), tmp_path)
    before = model_folder.load_model(tmp_path).variables
    explode(monkeypatch)
    loop.train(config(steps=8, eval_every=0, on_nonfinite="skip"), tmp_path)
    assert losses(tmp_path)[4:] == [None] * 4
    assert history(tmp_path)[-1]["skipped"] == 3
    assert history(tmp_path)[-1]["loss"] is None
    assert "step 5: loss inf" in capsys.readouterr().out
    after = model_folder.load_model(tmp_path, "latest").variables
    np.testing.assert_equal(after["params"], before["params"])


def test_an_unwritable_workdir_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*another --workdir"):
        loop.train(config(), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", r"run\.json is not valid JSON .*move it away"),
        ("run.json", "[]", r"run\.json: must be an object, not \[\]; fix it or move it away"),
        ("run.json", "{}", r"run\.json: config is missing; fix it"),
        (
            "run.json",
            '{"config": {}, "data": {"name": "x", "samples": 1, "sha256": "x"}, "starts": []}',
            r"run\.json: config\.model is missing; fix it",
        ),
        ("metrics.jsonl", None, r"metrics\.jsonl: Is a directory; fix that"),
    ],
)
def test_an_invalid_file_of_an_earlier_start_is_named(tmp_path, name, content, message):
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        loop.train(config(), tmp_path)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_sentence_and_leaves_the_last_checkpoint(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("mounting a small tmpfs needs privileges")
    command = (
        "tests/tiny.py", "--config=tests/tiny.py", f"--workdir={tmp_path}",
        "--config.train.steps=200", "--config.train.save_every=1", "--config.train.keep_every=1",
        "--config.train.eval_every=0",
    )  # fmt: skip
    try:
        run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        last = model_folder.finished_steps(tmp_path)[-1]
        assert run.returncode == 2
        assert re.fullmatch(
            rf"error: {tmp_path}.*[Nn]o space left.* The last good checkpoint is that of step "
            rf"{last} in {tmp_path}\.\n",
            run.stderr,
        )
        model_folder.verify(tmp_path, last)
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_failed_save_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    write = orbax_store.write

    def onto_a_full_disk(manager, step, *arguments, **options):
        if step == 100:
            raise OSError(28, "No space left on device")
        write(manager, step, *arguments, **options)

    monkeypatch.setattr(orbax_store, "write", onto_a_full_disk)
    sentence = r"checkpoints: no space left on the disk; free some .* checkpoint is that of step 50"
    with pytest.raises(UserError, match=sentence):
        loop.train(config(steps=200, save_every=50, eval_every=0, log_every=1), tmp_path)
    assert 100 <= history(tmp_path)[-1]["step"] < 150, "not only when the next one is saved"


@pytest.mark.slow
def test_a_vanished_file_names_itself_and_the_last_checkpoint(tmp_path, monkeypatch):
    loop.train(config(steps=4, eval_every=0), tmp_path)
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda *a: Vanishing(load(*a)))
    with pytest.raises(UserError, match=r"gone\.png.*last good checkpoint is that of step \d"):
        loop.train(config(steps=60, eval_every=0), tmp_path)


class Vanishing:
    """A source whose files are deleted once some samples have been read."""

    def __init__(self, source):
        self.source, self.ids = source, source.ids
        self.info, self.reads = source.info, 0

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.reads += 1
        if self.reads > 50:
            raise FileNotFoundError(2, "No such file or directory", "gone.png")
        return self.source[index]


class Unlabelled:
    """A source in which every pixel is ignored."""

    def __init__(self, source):
        self.source, self.ids, self.info = source, source.ids, source.info

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        sample = self.source[index]
        return sample._replace(label=np.full_like(sample.label, 255))


@pytest.mark.slow
def test_a_validation_without_a_labelled_pixel_has_no_score_and_no_best(
    tmp_path, monkeypatch, capsys
):
    load = datasets.load
    monkeypatch.setattr(
        datasets,
        "load",
        lambda name, root, split, *pixel: (Unlabelled if split == "val" else lambda x: x)(
            load(name, root, split, *pixel)
        ),
    )
    c = config(steps=8, eval_every=2, early_stop=1)
    assert loop.train(c, tmp_path) == 0
    out = capsys.readouterr().out
    assert out.count("mIoU -  mAcc -  aAcc -") == 4  # early stopping must not count these
    assert out.count("the validation images have no labelled pixel") == 1
    assert [r["mIoU"] for r in history(tmp_path, "eval")] == [None] * 4
    assert model_folder.best_step(tmp_path) is None
    assert model_folder.load_model(tmp_path).step == 8


def test_a_batch_that_cannot_be_split_names_a_size_that_can(tmp_path):
    with pytest.raises(UserError, match="batch_size=3 cannot be split evenly over 2 devices"):
        loop.train(config(batch_size=3), tmp_path)


WHOLE = b'{"kind": "train", "step": 5}\n'


@pytest.mark.parametrize(
    "tail", [b"", b'{"kind": "train", "ste', b"\n", b"\0\0\0\n", b"\xff\xfe", b'{"step": \xe2\x82']
)
def test_a_last_line_truncated_by_a_crash_is_ignored(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + WHOLE + tail)
    assert metrics_log.read(path) == [{"kind": "train", "step": 5}] * 2


BAD_LINES = {
    b"": "not JSON",
    b"{": "not JSON",
    b"\xff\xfe": "not JSON",
    b"[]": r"must be an object, not \[\]",
    b'{"kind": "train"}': "step is missing",
    b'{"kind": "train", "step": null}': "step must be a whole number, not null",
    b'{"kind": "train", "step": true}': "step must be a whole number, not true",
    b'{"kind": "train", "step": -1}': "step must be 0 or more",
    b'{"kind": "test", "step": 5}': "kind must be train or eval",
    b'{"kind": "train", "step": 5, "losses": [1, "x"]}': r"losses.1. must be a finite number",
    b'{"kind": "eval", "step": 5, "mIoU": "x"}': "mIoU must be a finite number or null",
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items(), ids=map(str, range(11)))
def test_any_other_line_that_is_not_a_record_is_an_error_and_is_kept(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + line + b"\n" + WHOLE)
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"{path}, line 2 of 3: {message}.*move the file away"):
        loop.train(config(), tmp_path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "metrics.jsonl"]


def test_records_without_a_checkpoint_are_reported_and_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def start(records, start_step, pending=0):
        path.write_text("".join(json.dumps({"kind": "train", "step": s}) + "\n" for s in records))
        log = metrics_log.Records(path, start_step=start_step)
        log.close()
        return log.note(pending), [r["step"] for r in metrics_log.read(path)]

    assert start([5, 10], 10) == ("", [5, 10])
    assert start([5, 10], 12, pending=2) == ("", [5, 10])
    dropped = "1 records after step 12 are written again"
    assert start([5, 10, 15], 12, pending=2) == (dropped, [5, 10])
    lacking = f"warning: {path} lacks the record of step 10, perhaps others"
    assert start([5], 12, pending=2) == (lacking, [5])
    assert start([], 4, pending=4) == ("", [])
    for number in (1, 2):  # without checkpoints a new run starts: keep the old records
        kept = tmp_path / f"metrics-{number}.jsonl"
        assert start([5, 10], 0) == (f"2 records of steps without a checkpoint are in {kept}", [])
        assert [r["step"] for r in metrics_log.read(kept)] == [5, 10]


def test_a_record_is_completed_after_the_loss_gained_a_term():
    step = {"finite": 1.0, "learning_rate": 0.1, "loss": 2.0}
    meter = metrics_log.Meter({"gone": [5.0], **{name: [value] for name, value in step.items()}})
    meter.add({**step, "loss": 4.0, "loss_auxiliary": 1.0})
    found = meter.flush()
    assert (found["loss"], found["gone"], found["loss_auxiliary"]) == (3.0, 5.0, 1.0)
    assert found["losses"] == [2.0, 4.0]
