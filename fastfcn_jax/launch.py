"""The flags of commands that run in several processes, and the start of several on this machine."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from fastfcn_jax import cli, provenance
from fastfcn_jax.errors import UserError

WAIT = 0.2  # seconds between two looks at the processes
PATIENCE = 60.0  # seconds for the others to end by themselves when one has failed
SHOWN = 4000  # bytes of the errors of a process
T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def define(parser: cli.Parser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--processes", type=cli.at_least(1), metavar="N", help="Start N processes here, for trying."
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="Process 0, if there are more.")
    parser.add_argument(
        "--num-processes", type=cli.at_least(1), metavar="N", help="Number of processes."
    )
    parser.add_argument(
        "--process-id", type=cli.at_least(0), metavar="I", help="Index of this process, from 0."
    )


def define_ray(parser: cli.Parser) -> None:
    """Adds the flag of commands that can run on a Ray cluster."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="Use the Ray cluster at HOST:PORT; without it that of RAY_ADDRESS or this host.",
    )


def several(arguments: Namespace) -> int | None:
    """Runs this process's command in `--processes` processes; None if the flag is not given.

    Process 0 has the terminal; the errors of the others are printed with their number. A signal to
    this process goes to all.

    Returns:
      The status of the process that ended badly first, 128 plus the signal's number if a signal
      ended it; 0 if none did.

    Raises:
      UserError: --coordinator, --num-processes or --process-id is given as well.
    """
    if arguments.processes is None:
        return None
    for name in ("coordinator", "num_processes", "process_id"):
        if getattr(arguments, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--processes starts all processes here; leave --{flag} out.")
    with contextlib.ExitStack() as stack:
        running = list(_start(arguments.processes, stack))
        stack.enter_context(_forwarding(running))
        return wait(running)


class Started:
    """A process that was started: its number, and the file with its errors."""

    def __init__(self, index: int, child: subprocess.Popen, errors: Path):
        self.index, self.child, self.errors = index, child, errors

    def status(self) -> int | None:
        """Its exit status as a shell reports it; None while it runs."""
        code = self.child.poll()
        return 128 - code if code is not None and code < 0 else code

    def name_errors(self) -> None:
        for line in self.errors.read_bytes()[-SHOWN:].decode(errors="replace").splitlines():
            print(f"process {self.index}: {line}", file=sys.stderr)


def _start(count: int, stack: contextlib.ExitStack) -> Iterator[Started]:
    command = [sys.executable, *without_flag(sys.orig_argv[1:], "--processes")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    given = devices(count)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for i in range(count):
        flags = (f"--coordinator={address}", f"--num-processes={count}", f"--process-id={i}")
        errors = folder / str(i)
        with _limited_to(share_of(cores, i, count)), errors.open("wb") as file:
            child = subprocess.Popen(
                [*command, *flags],
                env={**os.environ, provenance.COMMAND: provenance.command(), **given[i]},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if i else None,
                stderr=file if i else None,
                # Ctrl-C comes from here alone: two signals would end a training without saving.
                process_group=0,
            )
        stack.callback(child.kill)
        yield Started(i, child, errors)


def without_flag(words: Sequence[str], flag: str) -> list[str]:
    """The words of a command line without a flag and its value."""
    kept, skips = [], False
    for word in words:
        if not skips and word != flag and not word.startswith(f"{flag}="):
            kept.append(word)
        skips = word == flag
    return kept


def share_of(cores: Sequence[T], index: int, count: int) -> Sequence[T]:
    """The cores (or devices) of process `index`; shared with others if there are too few."""
    if len(cores) < count:
        return cores[index % len(cores) :][:1] if cores else ()
    return cores[index * len(cores) // count : (index + 1) * len(cores) // count]


@contextlib.contextmanager
def _limited_to(cores: Sequence[int]) -> Iterator[None]:
    """Processes that are started within have only these cores; all if there are none."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def devices(count: int) -> list[dict[str, str]]:
    """For each process the variables that give it GPUs of its own, or keep all on the CPU."""
    names = _gpus()
    if names and len(names) < count and "JAX_PLATFORMS" not in os.environ:
        print(f"note: {count} processes and {len(names)} GPUs: they compute on the CPU")
        return [{"JAX_PLATFORMS": "cpu"}] * count
    shares = [share_of(names, i, count) for i in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} if share else {} for share in shares]


def _gpus() -> list[str]:
    """What CUDA calls the GPUs of this machine."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    told = subprocess.run([program, "-L"], capture_output=True, text=True, check=False).stdout
    return [str(i) for i in range(len([x for x in told.splitlines() if x.startswith("GPU ")]))]


@contextlib.contextmanager
def _forwarding(running: Sequence[Started]) -> Iterator[None]:
    """Passes signals on to all processes instead of ending this one."""

    def send(number, frame) -> None:
        for process in running:
            if process.status() is None:
                process.child.send_signal(number)

    before = {number: signal.signal(number, send) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait(running: Sequence[Started]) -> int:
    """Waits until all have ended; returns the first bad status."""
    waiting, bad, end = list(running), 0, float("inf")
    while waiting:
        for process in tuple(waiting):
            if (status := process.status()) is None:
                continue
            waiting.remove(process)
            if status:
                if status - 128 not in SIGNALS:
                    process.name_errors()
                end = min(end, time.monotonic() + PATIENCE)
                bad = bad or status
        if time.monotonic() > end:
            for process in waiting:
                process.child.kill()
        time.sleep(WAIT)
    return bad
