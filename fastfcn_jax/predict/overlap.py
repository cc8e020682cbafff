"""Runs a step of the work in threads, so that decoding, the device and writing overlap."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

THREADS = max(2, min(8, (os.cpu_count() or 2) // 2))
MAX_BYTES = 1 << 29  # of all items in hand; a large photograph alone may have more


def in_threads(
    step: Callable[[In], Out], items: Iterable[In], *, weigh: Callable[[Out], int]
) -> Iterator[Out]:
    """Yields step(item) in order, working on a few items ahead of the caller.

    Args:
      weigh: bytes that an item takes while it waits; items as large as the last one are taken
        ahead as far as `MAX_BYTES` allow.
    """
    ahead = 1
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for item in items:
            waiting.append(pool.submit(step, item))
            while len(waiting) > ahead:
                result = waiting.popleft().result()
                ahead = max(1, min(THREADS, MAX_BYTES // max(weigh(result), 1)))
                yield result
        while waiting:
            yield waiting.popleft().result()
