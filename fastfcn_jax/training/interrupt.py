"""Turns SIGINT and SIGTERM into a request to stop, which the loop obeys between two steps."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")


class Interrupt:
    """Context manager: the first signal sets `requested`; a second one has its usual effect.

    status: the exit status to report, 128 plus the number of the signal (Ctrl-C: 130).
    """

    def __init__(self):
        self.requested = False
        self.status = 128 + signal.SIGTERM  # if only another process received a signal
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def wait(self, function: Callable[[], T]) -> T | None:
        """The result of a call in a thread of its own; None as soon as a signal is received.

        For what XLA compiles: it does not return to Python for minutes, and until then a signal
        would not be noticed. The call is left to itself.
        """
        if not self._previous:  # not the main thread, which alone receives signals
            return function()
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        # Not an executor: the interpreter would wait for its threads at the end.
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while thread.is_alive() and not self.requested:
            thread.join(timeout=0.1)
        if not thread.is_alive():
            return done.result()
        atexit.register(self._end_beside, thread)
        return None

    def _end_beside(self, thread: threading.Thread) -> None:
        """Ends the process here: the interpreter's own end aborts while XLA compiles."""
        if thread.is_alive():
            for child in multiprocessing.active_children():  # of `data.workers`; else they stay
                child.terminate()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)

    def _receive(self, number, frame) -> None:
        self.requested = True
        self.status = 128 + number
        signal.signal(number, self._previous[number])
        # Not print, which raises if the signal arrived during another print.
        os.write(2, b"stopping after this step; send the signal again to stop at once\n")


class Agreement:
    """Makes all processes stop after the same step, although signals arrive at different times.

    After each step, the processes sum their stop requests on the devices. Each
    reads the sum of two steps earlier, which is finished by then, so that no step
    waits for communication.
    """

    LAG = 2

    def __init__(self):
        self._alone = jax.process_count() == 1
        self._sums: deque = deque()
        if not self._alone:
            mesh = Mesh(np.array(jax.devices()), ("all",))
            self._sharding = NamedSharding(mesh, PartitionSpec("all"))
            replicated = NamedSharding(mesh, PartitionSpec())
            self._sum = jax.jit(jnp.sum, out_shardings=replicated)

    def stop(self, asked: bool) -> bool:
        """Whether to stop now; every process must call this before every step.

        Args:
          asked: whether this process was asked to stop.
        """
        if self._alone:
            return asked
        mine = np.full(jax.local_device_count(), asked, np.int32)
        self._sums.append(self._sum(jax.make_array_from_process_local_data(self._sharding, mine)))
        if len(self._sums) <= self.LAG:
            return False
        return int(self._sums.popleft().addressable_data(0)) > 0
