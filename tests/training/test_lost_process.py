"""A process of a training that dies, hangs or fails alone: the others end soon, in one sentence."""

import os
import signal
import time

import pytest
from processes import start_by_slurm, start_two

pytestmark = pytest.mark.slow
FLAGS = ("--config.train.save_every=20", "--config.train.eval_every=0")
HOST = os.uname().nodename


def wait_for_step(folder, step, processes, seconds=180):
    end = time.monotonic() + seconds
    while not (folder / "checkpoints" / str(step)).exists():
        assert all(process.poll() is None for process in processes), "ended too soon"
        assert time.monotonic() < end
        time.sleep(0.05)


def ends(process, status):
    """Its one sentence after "error: "."""
    output = process.communicate(timeout=150)[0]
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert "absl::" not in output, "JAX's own end"
    (sentence,) = [line for line in output.splitlines() if "error" in line.lower()]
    assert sentence.startswith("error: ")
    return sentence.removeprefix("error: ")


@pytest.mark.parametrize(
    ("lost", "by", "how"),
    [
        (0, signal.SIGKILL, "has ended"),  # process 0 runs JAX's coordination service
        (1, signal.SIGSTOP, "has given no sign of life for 4 s"),
    ],
)
def test_the_others_end_when_a_process_is_lost(tmp_path, lost, by, how):
    flags = (*FLAGS, "--config.train.steps=100000")
    processes = start_two(tmp_path / "run", *flags, devices=1, TINY_SILENCE="4")
    wait_for_step(tmp_path / "run", 20, processes)
    processes[lost].send_signal(by)
    sentence = ends(processes[1 - lost], 75)
    assert sentence.startswith(f"process {lost} on {HOST} {how}; the training goes on from its")
    assert f"--process_id={1 - lost}" in sentence
    if by == signal.SIGSTOP:
        processes[lost].send_signal(signal.SIGCONT)
        assert ends(processes[lost], 75).startswith(f"process {1 - lost} on {HOST} has ended; the")


def test_an_error_of_one_process_ends_the_others_with_its_message(tmp_path):
    processes = start_two(tmp_path / "run", *FLAGS, devices=1, second_fails="input")
    assert ends(processes[1], 2).startswith("7.png is damaged There is no checkpoint yet in")
    assert ends(processes[0], 2).startswith("process 1 has ended: 7.png is damaged")


def test_a_bug_in_one_process_ends_the_others_under_slurm(tmp_path):
    processes = start_by_slurm(tmp_path / "run", 2, *FLAGS, last_fails="bug")
    output = processes[1].communicate(timeout=150)[0]
    assert processes[1].returncode == 1, output
    assert output.rstrip().endswith("ZeroDivisionError: a bug")
    assert ends(processes[0], 2) == "process 1 has ended: a bug"
