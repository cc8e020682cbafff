"""Forks trainings of the tiny model from one process that has imported everything.

python tests/nursery.py SOCKET

Imports are half of the processor time of a training of some steps. JAX is started after the fork
only, and a child ends as a program of its own does, with all that Python runs at exit.
"""

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tensorboardX  # noqa: F401
import tiny

import fastfcn_jax.training.__main__  # noqa: F401


def wait_for_birth(requests: socket.socket) -> None:
    """Forks a child for each request; returns in the child. Ends when the tests do."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # attendants leave no zombies
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 1 << 18, 2)
        if not message:
            sys.exit()
        output, status = descriptors
        if os.fork() == 0:
            requests.close()
            return attend(json.loads(message), output, status)
        os.close(output)
        os.close(status)


def attend(request: dict, output: int, status: int) -> None:
    """Forks the child and returns in it; writes its number, and how it ended, to `status`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        os.close(output)
        os.write(status, f"{child}\n".encode())
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(status, f"{ended}\n".encode())
        os._exit(0)
    os.close(status)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = ["tests/tiny.py", *request["flags"]]
    sys.orig_argv[:] = [sys.executable, *sys.argv]


if __name__ == "__main__":
    gc.freeze()  # the collector would write to every page that is shared with the children
    wait_for_birth(socket.socket(fileno=int(sys.argv[1])))
    tiny.main()
