"""Ray nodes on loopback for tests: `ray start` in processes of their own, as on a cluster."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import ray  # noqa: F401  (brings psutil)

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 100 << 20  # bytes of the object store of a node; 78 MB is the least


class Nodes:
    """A head and further nodes of two CPUs each; `with` ends them.

    Workers find the package and the modules of the tests, and the variables in `environment`.
    """

    def __init__(self, count: int = 1, cpus: int = 2, **environment: str):
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets need short paths
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")])
        self._environment = {
            **os.environ,
            "PYTHONPATH": path,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            # A node that was killed is noticed after 2.5 s, not 15 s.
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_initial_delay_ms": "1000",
            **environment,
        }
        self._cpus = cpus
        self.address = f"127.0.0.1:{_free_port()}"
        port = self.address.split(":")[1]
        head = ("--head", f"--port={port}", f"--temp-dir={self._folder}")
        self.nodes = [self._start(*head, "--include-dashboard=false", "--disable-usage-stats")]
        for _ in range(count - 1):
            self.add()

    def add(self) -> None:
        self.nodes.append(self._start(f"--address={self.address}"))

    def kill(self, index: int) -> None:
        """Kills a node: all its processes at once, as when a machine loses its power."""
        process = self.nodes.pop(index)
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()

    def workers(self, name: str) -> list[psutil.Process]:
        """The processes of actors whose name contains `name`."""
        found = []
        for node in self.nodes:
            for process in psutil.Process(node.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if name in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_) -> None:
        while self.nodes:
            self.kill(-1)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *flags: str) -> subprocess.Popen:
        path = Path(self._folder, f"start-{time.monotonic_ns()}.log")
        program = "from ray.scripts.scripts import main; main()"
        with path.open("w") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-c", program, "start", *flags, "--block",
                    "--node-ip-address=127.0.0.1", f"--num-cpus={self._cpus}",
                    f"--object-store-memory={MEMORY}",
                ],
                env=self._environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        while "Ray runtime started" not in path.read_text():
            assert process.poll() is None, path.read_text()
            time.sleep(0.5)
        return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
