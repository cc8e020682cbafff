"""The queue before the model: how many requests it takes, and what it is doing."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastfcn_jax.serve.guard import GoneError, RefusedError
from fastfcn_jax.serve.measures import Measures

MAX_REQUESTS = 256
MAX_HELD = 512 << 20  # bytes of all uploads together
THREADS = min(os.cpu_count() or 1, 4)  # decode and encode while the model computes for another
RETRY_SECONDS = 5


class Desk:
    """Takes requests up to a limit, and has them answered in order.

    Args:
      answer: called in a thread with each upload and its other arguments.
    """

    def __init__(
        self, answer: Callable[..., Any], measures: Measures, *, places: int = MAX_REQUESTS
    ):
        self.places = places
        self._answer = answer
        self._measures = measures
        self._threads = ThreadPoolExecutor(THREADS, "predict")
        self._turns = asyncio.Semaphore(THREADS)
        self._held = 0
        self._bytes = 0

    @property
    def held(self) -> int:
        """Requests that are uploading, waiting, or being answered."""
        return self._held

    @contextlib.asynccontextmanager
    async def place(self, size: int) -> AsyncIterator[None]:
        """A place in the queue for a request with an upload of so many bytes.

        Raises:
          RefusedError: the queue is full.
        """
        if self._held >= self.places or (self._held and self._bytes + size > MAX_HELD):
            raise RefusedError(
                503,
                f"{self._held} requests are waiting; try again later",
                retry_seconds=RETRY_SECONDS,
            )
        self._change(1, size)
        try:
            yield
        finally:
            self._change(-1, -size)

    async def answer(self, has_left: Callable[[], Awaitable[bool]], *arguments: Any) -> Any:
        """Waits for a turn and returns what `answer` says.

        Raises:
          GoneError: the client has left in the meantime.
        """
        begun = time.monotonic()
        async with self._turns:
            if await has_left():
                raise GoneError
            self._measures.waited.observe(time.monotonic() - begun)
            loop = asyncio.get_running_loop()
            with self._measures.predictions.time():
                return await loop.run_in_executor(self._threads, self._answer, *arguments)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _change(self, requests: int, size: int) -> None:
        self._held += requests
        self._bytes += size
        self._measures.held.set(self._held)
        self._measures.held_bytes.set(self._bytes)


class Occupation:
    """What the model is doing, for a page that waits; safe to use from several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._doing, self._since = "", 0.0

    def begin(self, doing: str) -> None:
        with self._lock:
            self._doing, self._since = doing, time.monotonic()

    def end(self) -> None:
        self.begin("")

    def now(self) -> tuple[str, float]:
        """What is being done ("" if nothing is), and for how many seconds."""
        with self._lock:
            return self._doing, time.monotonic() - self._since if self._doing else 0.0
