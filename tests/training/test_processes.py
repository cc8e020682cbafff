"""Real processes: several that train together, signals, SIGKILL; all strategies agree."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from layouts import photo, write_png
from processes import finish, start, start_two
from tiny import losses

from fastfcn_jax import runtime
from fastfcn_jax.checkpoints import model_folder, orbax_store
from fastfcn_jax.training import metrics_log, workdir

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def arrays(run, step):
    """Every array of a checkpoint, by name."""
    folder = run / "checkpoints" / str(step)
    return {
        item + jax.tree_util.keystr(path): leaf
        for item in ("model", "training")
        for path, leaf in jax.tree_util.tree_leaves_with_path(orbax_store.read_item(folder, item))
    }


@pytest.mark.parametrize("variant", ["", "official"])
def test_one_device_four_devices_and_two_processes_train_alike(tmp_path, variant):
    flags = (
        "--config.train.steps=5", "--config.train.eval_every=0", "--config.model.dropout=0.0",
        "--config.train.ema_decay=0.9",
    )  # fmt: skip
    layouts = {"pmap1": (1, "pmap"), "pmap4": (4, "pmap"), "jit4": (4, "jit")}
    for name, (devices, strategy) in layouts.items():
        chosen = f"--config.train.strategy={strategy}"
        finish(start(tmp_path / name, *flags, chosen, devices=devices, variant=variant))
    outputs = finish(*start_two(tmp_path / "two", *flags, variant=variant))
    assert "4 x cpu in 2 processes; strategy: jit" in outputs[0]
    assert outputs[1] == "" or "step" not in outputs[1]  # only process 0 prints
    expected = arrays(tmp_path / "pmap1", 5)
    for name in ("pmap4", "jit4", "two"):
        np.testing.assert_allclose(
            losses(tmp_path / name), losses(tmp_path / "pmap1"), rtol=1e-5, err_msg=name
        )
        found = arrays(tmp_path / name, 5)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            scale = max(float(np.abs(value).max()), 1e-2)
            np.testing.assert_allclose(
                found[key], value, rtol=0, atol=1e-5 * scale, err_msg=f"{name} {key}"
            )


def test_parallel_launchers_are_recognised():
    assert runtime.launched_in_parallel({"SLURM_STEP_NUM_TASKS": "4"})
    assert runtime.launched_in_parallel({"OMPI_COMM_WORLD_SIZE": "2"})
    assert not runtime.launched_in_parallel({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"})


def refuse(*processes):
    """Waits for processes that must all exit with status 2; returns their error messages."""
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [2] * len(processes), outputs
    sentences = [[x for x in o.splitlines() if x.startswith("error: ")] for o in outputs]
    assert [len(x) for x in sentences] == [1] * len(processes), outputs
    assert all("Traceback" not in output for output in outputs)
    return [x[0] for x in sentences]


def test_processes_with_different_settings_all_fail_and_name_the_key(tmp_path):
    second = ("--config.optim.lr=0.5", "--config.train.steps=7")
    processes = start_two(tmp_path / "run", "--config.train.steps=5", devices=1, second=second)
    for text in refuse(*processes):
        assert text.startswith(
            "error: process 1 does not belong to the training of process 0, it has another "
            "config.optim.lr (0.5 instead of 0.05), another config.train.steps (7 instead of 5);"
        )
    assert not (tmp_path / "run").exists()  # as before the start


def test_processes_that_do_not_share_a_workdir_or_the_data_all_fail(tmp_path):
    processes = start_two(tmp_path / "run", devices=1, second_workdir=tmp_path / "other")
    assert all(f"{tmp_path}/other on " in text for text in refuse(*processes))
    for name in ("here", "there"):
        for folder in ("train", "val"):
            for i in range(4):
                size = (12, 20)
                write_png(tmp_path / name / folder / f"{i}.png", photo(i, size))
                label = np.full(size, i + (name == "there"), np.uint8)
                write_png(tmp_path / name / f"{folder}annot" / f"{i}.png", label)
    flags = ("--config.data.name=camvid", f"--config.data.root={tmp_path}/here")
    second = (f"--config.data.root={tmp_path}/there",)
    processes = start_two(tmp_path / "run", *flags, devices=1, second=second)
    assert all("another training data ({" in text for text in refuse(*processes))
    second = (f"--config.data.root={tmp_path}/nowhere",)
    texts = refuse(*start_two(tmp_path / "run", *flags, devices=1, second=second))
    assert texts[0].startswith("error: process 1 has ended: ")
    assert all(f"{tmp_path}/nowhere" in text for text in texts)


def test_a_second_training_of_several_processes_fails_in_all_of_them(tmp_path):
    with workdir.hold(tmp_path):
        for text in refuse(*start_two(tmp_path, devices=1)):
            assert f"another training is running in {tmp_path}: process {os.getpid()} on " in text


def wait_for(process, pattern):
    """Reads lines until one matches and returns all of them."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.match(pattern, line):
            return lines
    raise AssertionError("".join(lines))


def test_deterministic_kernels_are_requested_before_xla_reads_its_flags(tmp_path):
    # With several processes, the first computation comes early: `join_processes` synchronises them.
    flags = (
        "--config.train.deterministic=True", "--config.train.steps=1", "--config.train.eval_every=0"
    )  # fmt: skip
    # Only small programs are selected: newer versions of XLA do not dump the options of others.
    dump = f"--xla_dump_to={tmp_path / 'xla'} --xla_dump_hlo_module_re=broadcast_in_dim"
    finish(*start_two(tmp_path / "run", *flags, devices=1, xla_flags=dump))
    seen = [path.read_text() for path in (tmp_path / "xla").rglob("compile_options.textproto")]
    assert seen
    assert all("xla_gpu_deterministic_ops: true" in options for options in seen)


LONG = ("--config.train.steps=100000", "--config.train.eval_every=0", "--config.train.save_every=0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(tmp_path, number):
    process = start(tmp_path, *LONG)
    wait_for(process, "step 5/")
    process.send_signal(number)
    (output,) = finish(process, status=128 + number)
    assert "send the signal again to stop at once" in output
    stopped = int(re.search(r"stopped after step (\d+)", output)[1])
    assert model_folder.finished_steps(tmp_path) == [stopped]
    assert f"--workdir={tmp_path}" in output.splitlines()[-1]
    resumed = start(tmp_path, *LONG[1:], f"--config.train.steps={stopped + 5}")
    (output,) = finish(resumed)
    assert f"resuming from the checkpoint of step {stopped}" in output
    assert len(losses(tmp_path)) == stopped + 5  # every step once


def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(tmp_path):
    first, second = start_two(tmp_path, *LONG, devices=1)
    wait_for(first, "step 5/")
    time.sleep(0.2)
    second.send_signal(signal.SIGTERM)
    outputs = finish(first, second, status=128 + signal.SIGTERM)
    stopped = int(re.search(r"stopped after step (\d+)", outputs[0])[1])
    assert model_folder.finished_steps(tmp_path) == [stopped]
    outputs = finish(*start_two(tmp_path, *LONG[1:], f"--config.train.steps={stopped + 5}"))
    assert f"resuming from the checkpoint of step {stopped}" in outputs[0]
    assert len(losses(tmp_path)) == stopped + 5


def test_an_interrupted_evaluation_is_made_on_resuming(tmp_path):
    slow = (
        "--config.train.steps=8", "--config.train.eval_every=4", "--config.eval.max_images=0",
    )  # fmt: skip
    finish(start(tmp_path / "alone", *slow))
    process = start(tmp_path / "stopped", *slow)
    wait_for(process, "step 4: evaluating")
    process.send_signal(signal.SIGTERM)
    (output,) = finish(process, status=128 + signal.SIGTERM)
    assert "stopped after step 4" in output
    finish(start(tmp_path / "stopped", *slow))
    histories = [
        [(r["kind"], r["step"], r.get("loss"), r.get("mIoU")) for r in metrics_log.read(path)]
        for path in sorted(tmp_path.glob("*/metrics.jsonl"))
    ]
    assert histories[0] == histories[1]


def test_a_run_killed_at_any_of_five_moments_ends_the_same(tmp_path):
    command = ("benchmarks/kill_resume.py", "--kills=5", "--steps=80", f"--output={tmp_path}")
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "bit-identical" in result.stdout
