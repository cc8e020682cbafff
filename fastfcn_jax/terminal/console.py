"""Output of a training: a live line on a terminal, curves in a notebook, plain lines otherwise."""

import datetime
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn

from fastfcn_jax.terminal import notebook


class Console:
    """Prints the messages of process 0; those of other processes are dropped.

    It also measures the speed: images per second and the share of the time spent waiting for data,
    since the last `rate()`.

    Attributes:
      curves: in a notebook, the display of progress and curves, to be given every record.
    """

    def __init__(self, total_steps: int, batch_size: int):
        self._total, self._batch_size = total_steps, batch_size
        self._quiet = jax.process_index() != 0
        self._progress = None
        is_shown = notebook.is_here() and not self._quiet
        self.curves = notebook.Curves(total_steps) if is_shown else None
        if not self._quiet and sys.stdout.isatty():
            columns = (BarColumn(), TextColumn("{task.completed}/{task.total}  {task.description}"))
            self._progress = Progress(*columns, console=RichConsole(), transient=True)
            self._task = self._progress.add_task("starting", total=total_steps)
            self._progress.start()
        self.restart_clock()

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            print(text, flush=True)

    def restart_clock(self) -> None:
        """Restarts the clock, so that evaluation or compilation does not count."""
        self._start, self._waited, self._steps = time.monotonic(), 0.0, 0

    def waited_for_data(self, seconds: float) -> None:
        self._waited += seconds

    def stepped(self, step: int) -> None:
        self._steps += 1
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def rate(self) -> dict[str, float]:
        """Speed since the last call; data_wait is a share of the time."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        values = {
            "images_per_second": round(self._steps * self._batch_size / elapsed, 3),
            "data_wait": round(self._waited / elapsed, 4),
            "seconds_per_step": round(elapsed / max(self._steps, 1), 5),
        }
        self.restart_clock()
        return values

    def report(self, step: int, values: Mapping[str, Any]) -> None:
        """Prints one line about a training record."""
        parts = " ".join(
            f"{name.removeprefix('loss_')} {values[name]:.4f}"
            for name in values
            if name.startswith("loss_") and values[name] is not None
        )
        loss = "none finite" if values["loss"] is None else f"{values['loss']:.4f} ({parts})"
        left = datetime.timedelta(seconds=round((self._total - step) * values["seconds_per_step"]))
        status = (
            f"loss {loss}  accuracy {values['accuracy'] or 0:.1f} %  "
            f"lr {values['learning_rate']:.3g}  {values['images_per_second']:.1f} images/s  "
            f"data wait {100 * values['data_wait']:.0f} %  {memory()}  {left} left"
        )
        if "skipped" in values:
            status += f"  {values['skipped']} steps skipped (not finite)"
        if self.curves is not None:
            self.curves.say(f"step {step}/{self._total}  {status}")
            return
        self.say(f"step {step}/{self._total}  {status}")
        if self._progress is not None:
            self._progress.update(self._task, description=f"{left} left")

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def memory() -> str:
    """Peak memory of the first accelerator, or of this process on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return f"{stats['peak_bytes_in_use'] / 2**30:.1f} GiB on device"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
