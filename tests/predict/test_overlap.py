"""Work in threads: order, errors, and how much is in hand at a time."""

import threading
import time

import pytest

from fastfcn_jax.predict import overlap


def test_results_come_in_order_while_the_next_are_worked_on():
    started = []

    def step(item):
        started.append(item)
        time.sleep(0.01 * (item % 3))
        return item * item

    done = overlap.in_threads(step, range(30), weigh=lambda _: 1)
    assert next(done) == 0
    results = [0]
    for result in done:
        results.append(result)
        assert len(started) - len(results) <= overlap.THREADS
    assert results == [item * item for item in range(30)]


def test_large_items_are_in_hand_one_beside_the_last():
    at_once, lock, most = 0, threading.Lock(), 0

    def step(item):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        with lock:
            at_once -= 1
        return item

    for _ in overlap.in_threads(step, range(20), weigh=lambda _: overlap.MAX_BYTES):
        pass
    assert most <= 2


def test_an_error_reaches_the_caller_and_the_source_is_not_drained():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    def step(item):
        if item == 3:
            raise KeyError("3")
        return item

    with pytest.raises(KeyError):
        list(overlap.in_threads(step, items(), weigh=lambda _: 1))
    assert len(taken) <= 3 + overlap.THREADS + 2
