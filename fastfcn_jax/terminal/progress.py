"""A progress bar on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 20


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and reports progress on standard error."""
    if sys.stderr.isatty():
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
