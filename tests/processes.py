"""Starts trainings of the tiny model in processes of their own."""

import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def nursery() -> socket.socket:
    """Starts `nursery.py`, which ends with this process; returns the way to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, "tests/nursery.py", str(theirs.fileno())],
        cwd=ROOT,
        stdout=subprocess.PIPE,  # as that of the children, or Python would buffer it otherwise
        stderr=subprocess.STDOUT,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    return ours


class Process:
    """A training of the tiny model; offers what the tests need of `subprocess.Popen`."""

    def __init__(self, flags, environment):
        reading, output = os.pipe()
        self._status, status = os.pipe()
        request = json.dumps({"flags": flags, "environment": environment}).encode()
        socket.send_fds(nursery(), [request], [output, status])
        os.close(output)
        os.close(status)
        self.stdout = os.fdopen(reading)
        self.pid = int(self._line())
        self.returncode = None

    def _line(self):
        line = b""
        while not line.endswith(b"\n"):
            line += (more := os.read(self._status, 1))
            assert more, "the nursery has ended"
        return line

    def poll(self):
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._line())
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """(all output, None) after the end; kills the process if that takes longer."""
        late = threading.Timer(timeout or threading.TIMEOUT_MAX, self.send_signal, [9])
        late.start()
        try:
            output = self.stdout.read()
            if self.returncode is None:
                self.returncode = int(self._line())
        finally:
            late.cancel()
        return output, None

    def __del__(self):
        os.close(self._status)


def start(
    folder, *flags, devices=1, variant="", xla_flags="", fresh=False, **environment
) -> Process | subprocess.Popen:
    """Starts a training; `fresh`: in a Python of its own, whose hashes of strings differ."""
    config = f"--config=tests/tiny.py{':' if variant else ''}{variant}"
    xla_flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip()
    environment = {
        **os.environ, "TINY_DEVICES": str(devices), "XLA_FLAGS": xla_flags, **environment
    }  # fmt: skip
    flags = [config, f"--workdir={folder}", *flags]
    if not fresh:
        return Process(flags, environment)
    return subprocess.Popen(
        [sys.executable, "tests/tiny.py", *flags],
        cwd=ROOT,
        env=environment,
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
