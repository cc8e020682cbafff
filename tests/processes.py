"""Starts trainings of the tiny model in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(folder, *flags, devices=1, variant="", xla_flags="", **environment):
    config = f"--config=tests/tiny.py{':' if variant else ''}{variant}"
    return subprocess.Popen(
        [sys.executable, "tests/tiny.py", config, f"--workdir={folder}", *flags],
        cwd=ROOT,
        env={**os.environ, "TINY_DEVICES": str(devices), "XLA_FLAGS": xla_flags, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(folder, *flags, devices=2, second=(), second_workdir=None, failure="", **kwargs):
    """Starts two processes that train together; `second`, `failure`: only for the second."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    together = (f"--coordinator=localhost:{port}", "--num_processes=2")
    return [
        start(folder, *flags, *together, "--process_id=0", devices=devices, **kwargs),
        start(
            second_workdir or folder, *flags, *together, *second, "--process_id=1",
            devices=devices, TINY_FAILURE=failure, **kwargs,
        ),
    ]  # fmt: skip


def finish(*processes, status=0):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), outputs
    return outputs
