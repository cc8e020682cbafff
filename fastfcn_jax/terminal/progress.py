"""A progress bar on a terminal or in a notebook, plain lines otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastfcn_jax.terminal import notebook

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 20


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and reports progress on standard error, in a notebook below the cell."""
    if notebook.is_here():
        yield from _cell(items, total, what)
    elif sys.stderr.isatty():
        yield from _bar(items, total, what)
    else:
        yield from _lines(items, total, what)


def _bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    columns = (*Progress.get_default_columns()[:2], TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield from progress.track(items, total=total, description=what)


def _cell(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    live, start = notebook.Live(), time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        left = (total - done) * (time.monotonic() - start) / done
        text = f"{what} {done}/{total}" + (f", {left:.0f} s left" if done < total else "")
        live.show(notebook.bar(done, total, text), now=done == total)


def _lines(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES or (done == total and now - start > 1):
            last = now
            each = (now - start) / done
            speed = f"{each:.1f} s each" if each > 1 else f"{1 / each:.1f}/s"
            left = f", {(total - done) * each:.0f} s left" if done < total else ""
            print(f"{what} {done}/{total}, {speed}{left}", file=sys.stderr)
