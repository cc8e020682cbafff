"""Starts trainings and evaluations of the tiny model in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(folder, *flags, devices=1, variant="", xla_flags="", **environment):
    config = f"--config=tests/tiny.py{':' if variant else ''}{variant}"
    xla_flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip()
    return subprocess.Popen(
        [sys.executable, "tests/tiny.py", config, f"--workdir={folder}", *flags],
        cwd=ROOT,
        env={**os.environ, "TINY_DEVICES": str(devices), "XLA_FLAGS": xla_flags, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_evaluation(*flags, failure="", **environment):
    """Starts an evaluation of a checkpoint of the tiny model."""
    return subprocess.Popen(
        [sys.executable, "tests/tiny.py", *map(str, flags)],
        cwd=ROOT,
        env={**os.environ, "TINY_COMMAND": "evaluation", "TINY_FAILURE": failure, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_several(folder, count, *flags, devices=1, **kwargs):
    """Starts processes that train together."""
    together = meeting(count)
    return [
        start(folder, *flags, *together, f"--process_id={i}", devices=devices, **kwargs)
        for i in range(count)
    ]


def start_two(folder, *flags, devices=2, second=(), second_workdir=None, second_fails="", **kwargs):
    """As `start_several`, with flags, a workdir and a failure of the second process alone."""
    together = meeting(2)
    return [
        start(folder, *flags, *together, "--process_id=0", devices=devices, **kwargs),
        start(
            second_workdir or folder, *flags, *together, *second, "--process_id=1",
            devices=devices, TINY_FAILURE=second_fails, **kwargs,
        ),
    ]  # fmt: skip


def start_by_slurm(folder, count, *flags, last_fails=""):
    """As `start_several`, told of each other by the variables that `srun` sets on one host."""
    step = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": str(count), "SLURM_NTASKS": str(count), "SLURM_STEP_NUM_NODES": "1",
    }  # fmt: skip
    return [
        start(
            folder, *flags, **step, SLURM_PROCID=str(i), SLURM_LOCALID=str(i),
            TINY_FAILURE=last_fails if i == count - 1 else "",
        )
        for i in range(count)
    ]  # fmt: skip


def meeting(count):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return (f"--coordinator=localhost:{port}", f"--num_processes={count}")


def finish(*processes, status=0, timeout=300):
    outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), outputs
    return outputs
