"""The manifest of predictions, and going on where an earlier call was stopped."""

import itertools
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections import deque
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import toy

from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import inputs, manifest
from fastfcn_jax.predict.manifest import Call, Manifest

NAMES = tuple(f"{folder}{i}.png" for folder in ("", "x/") for i in range(4))
STEMS = [name.removesuffix(".png") for name in NAMES]


@pytest.fixture
def call(tmp_path, monkeypatch):
    toy.lay(tmp_path / "in", *NAMES)

    def predict(model=None, **options):
        source = options.pop("source", tmp_path / "in")
        return toy.predict(monkeypatch, source, tmp_path / "out", model, **options)

    return predict


def records(folder, name="predictions.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


class Stopped(toy.Model):
    """Fails after a few photographs, as a kill would."""

    def __init__(self, after):
        super().__init__()
        whole = self.predictor.stream

        def stream(images, *, confidence=False):
            for count, answer in enumerate(whole(images, confidence=confidence)):
                if count == after:
                    raise MemoryError
                yield answer

        self.predictor.stream = stream


def test_each_photograph_has_a_line_with_its_files_checksums_and_status(call, tmp_path):
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    summary, _ = call(confidence=True)
    started, *lines = records(tmp_path / "out")
    assert started["status"] == "started"
    assert started["choices"]["confidence"] is True
    assert started["choices"]["protocol"] == "single"
    found = {line["name"]: line for line in lines}
    assert set(found) == {*STEMS, "bad"}
    assert found["x/1"] == {
        "name": "x/1",
        "input": str(tmp_path / "in" / "x" / "1.png"),
        "outputs": ["x/1.png", "x/1_overlay.png", "x/1_confidence.png"],
        "status": "ok",
        "model": "weights",
        "settings": started["settings"],
    }
    for line in lines:
        assert all((tmp_path / "out" / name).stat().st_size for name in line["outputs"])
    (reason,) = summary.failures
    assert (found["bad"]["status"], found["bad"]["reason"]) == ("failed", reason)


def test_a_stopped_call_goes_on_where_it_was(call, tmp_path, capsys):
    with pytest.raises(MemoryError):
        call(Stopped(after=3))
    before = [line["name"] for line in records(tmp_path / "out") if line["status"] == "ok"]
    assert 0 < len(before) <= 3
    with (tmp_path / "out" / "predictions.jsonl").open("ab") as file:
        file.write(b'{"name": "x/3", "status": "ok", "inp')  # cut by the kill
    summary, model = call(skip_existing=True)
    assert f"{len(before)} of 8 are done already" in capsys.readouterr().out
    assert sorted([*before, *model.predicted]) == STEMS
    assert (summary.total, summary.failures) == (8, [])
    assert sorted(line["name"] for line in records(tmp_path / "out") if "name" in line) == STEMS
    assert call(skip_existing=True)[1].predicted == []


def test_a_killed_process_leaves_complete_files_and_another_goes_on(call, tmp_path):
    toy.lay(tmp_path / "in", *(f"y/{i}.png" for i in range(40)))
    program = Path(toy.__file__)
    path = tmp_path / "out" / "predictions.jsonl"
    with subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "in"), str(tmp_path / "out")],
        cwd=program.parents[1],
        env={**os.environ, "PYTHONPATH": str(program.parents[1])},
    ) as process:
        while process.poll() is None and not (path.exists() and path.read_text().count("ok") > 5):
            time.sleep(0.02)
        process.kill()
    before = [record["name"] for record in records(tmp_path / "out") if record["status"] == "ok"]
    assert 5 < len(before) < 48
    for name in before:
        written = PIL.Image.open(tmp_path / "out" / f"{name}.png")
        image = PIL.Image.open(tmp_path / "in" / f"{name}.png")
        np.testing.assert_array_equal(np.array(written), toy.labels_of(np.array(image)))
    _, model = call(skip_existing=True)
    assert sorted([*before, *model.predicted]) == sorted([*STEMS, *(f"y/{i}" for i in range(40))])


def test_incomplete_results_are_made_again(call, tmp_path, capsys):
    call()
    (tmp_path / "out" / "1_overlay.png").unlink()
    (tmp_path / "out" / "x" / "2.png").write_bytes(b"")  # of a power failure
    assert call(skip_existing=True)[1].predicted == ["1", "x/2"]
    assert "6 of 8 are done already" in capsys.readouterr().out


def test_a_file_that_failed_is_tried_again(call, tmp_path):
    whole = (tmp_path / "in" / "1.png").read_bytes()
    (tmp_path / "in" / "1.png").write_bytes(whole[:60])
    assert len(call()[0].failures) == 1
    (tmp_path / "in" / "1.png").write_bytes(whole)
    assert call(skip_existing=True)[1].predicted == ["1"]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (toy.Model(mark="other"), {}, r"another model \(toy\)"),
        (None, {"overlay": False}, "overlay True instead of False"),
        (None, {"values": "stored"}, "values 'classes' instead of 'stored'"),
    ],
)
def test_results_of_another_model_or_other_settings_are_not_taken_for_done(
    call, tmp_path, capsys, model, options, said
):
    call()
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    with pytest.raises(UserError, match=rf"out: what is there was made otherwise: {said};"):
        call(model, skip_existing=True, **options)
    assert {p: p.read_bytes() for p in before} == before
    summary, again = call(model, source=tmp_path / "in" / "x", **options)  # replaces 0 to 3
    assert len(again.predicted) == summary.total == 4
    capsys.readouterr()
    again.predictor.seen.clear()
    _, rest = call(again, skip_existing=True, source=tmp_path / "in" / "x", **options)
    assert rest.predicted == []
    with pytest.raises(UserError, match="made otherwise"):  # 0 to 3 come from other files now
        call(again, skip_existing=True, **options)


def test_a_mixture_is_completed_and_said(call, tmp_path, capsys):
    call()
    with pytest.raises(MemoryError):
        call(Stopped(after=5), legend=True)
    capsys.readouterr()
    _, model = call(skip_existing=True, legend=True)
    said = capsys.readouterr().out
    assert f"{len(model.predicted)} that are there were made otherwise (" in said
    assert {"x/2", "x/3"} <= set(model.predicted) < set(STEMS)


def test_without_a_manifest_the_files_count_and_it_is_said(call, tmp_path, capsys):
    call()
    (tmp_path / "out" / "predictions.jsonl").unlink()
    (tmp_path / "out" / "x" / "0.png").unlink()
    assert call(skip_existing=True)[1].predicted == ["x/0"]
    assert "they are in no manifest" in capsys.readouterr().out
    assert call(skip_existing=True)[1].predicted == []


def test_another_number_of_shards_goes_on_as_well(call, tmp_path):
    first = [call(shard=f"{i}/4")[1].predicted for i in (0, 1)]
    rest = [call(shard=f"{i}/2", skip_existing=True)[1].predicted for i in (0, 1)]
    assert sorted(itertools.chain(*first, *rest)) == STEMS


def test_a_line_that_is_no_record_is_named(call, tmp_path):
    call()
    path = tmp_path / "out" / "predictions.jsonl"
    path.write_text(path.read_text().replace('"name"', '"nome"', 1))
    with pytest.raises(UserError, match=r"predictions.jsonl, line 2: not a record"):
        call(skip_existing=True)


def test_two_processes_do_not_write_one_manifest(tmp_path):
    call = Call("weights", {})
    with (
        Manifest(tmp_path, call),
        pytest.raises(UserError, match=r"another process .* --shard I/N"),
    ):
        Manifest(tmp_path, call)
    with Manifest(tmp_path, call):
        pass


def test_results_without_overlays_are_not_taken_for_photographs(call, tmp_path):
    inside = tmp_path / "in" / "out"
    for _ in range(2):
        found = inputs.find(str(tmp_path / "in"), inside)
        assert sorted(photo.stem for photo in found) == STEMS
        inside.mkdir(exist_ok=True)
        with Manifest(inside, Call("weights", {})) as lines:
            for photo in found:
                name = f"{photo.stem}.png"
                toy.lay(inside, name)
                lines.ok(photo.stem, photo.source, [name])
    assert len(manifest.results(inside)) == len(NAMES)


def test_what_comes_while_it_runs_is_not_taken_for_photographs(call, tmp_path, monkeypatch):
    output = tmp_path / "in" / "zz"
    _, model = toy.predict(monkeypatch, tmp_path / "in", output, overlay=False)
    assert sorted(model.predicted) == STEMS


@pytest.mark.slow
def test_the_names_of_many_files_are_never_all_in_memory(tmp_path):
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for name in range(100):
            os.mknod(tmp_path / str(folder) / f"{name}_of_a_photograph.jpg")

    def peak():
        tracemalloc.start()
        found = inputs.find(str(tmp_path))
        (last,) = deque(found, maxlen=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (len(found), last.stem) == (2000, "9/9_of_a_photograph")
        return most

    # Once in a while Python's table of shared strings grows meanwhile, to twice its size.
    assert any(peak() < 120_000 for _ in range(5)), "2000 paths take 500 kB"
