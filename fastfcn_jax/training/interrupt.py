"""SIGINT and SIGTERM as a wish to stop that the loop honours between two steps."""

import os
import signal
import threading
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Interrupt:
    """Context manager: the first signal sets `requested`, a second one acts as usual.

    status: the exit status by which a shell knows a program that this signal ended (Ctrl-C: 130).
    """

    def __init__(self):
        self.requested = False
        self.status = 128 + signal.SIGTERM  # where another process of the training was told to stop
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

    def _receive(self, number, frame) -> None:
        self.requested = True
        self.status = 128 + number
        signal.signal(number, self._previous[number])
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"stopping after this step; the same signal again stops at once\n")


class Agreement:
    """Lets all processes stop after the same step although their signals come at different times.

    Each process enters its own wish once a step and reads what all of them
    wished two steps ago, by when the sum has long been there: no step waits.
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

    def stop(self, wish: bool) -> bool:
        """Whether to stop now; called by every process after every step."""
        if self._alone:
            return wish
        mine = np.full(jax.local_device_count(), wish, np.int32)
        self._sums.append(self._sum(jax.make_array_from_process_local_data(self._sharding, mine)))
        if len(self._sums) <= self.LAG:
            return False
        return int(self._sums.popleft().addressable_data(0)) > 0
