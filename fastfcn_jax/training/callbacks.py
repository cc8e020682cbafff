"""Callbacks: a user's own code, called when a training starts, logs, validates, saves and ends."""

import copy
import dataclasses
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fastfcn_jax.errors import UserError

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclasses.dataclass(frozen=True)
class Training:
    """What a callback is told at the start.

    Attributes:
      workdir: folder of the run.
      config: the whole configuration, as in run.json.
      class_names: in the order of the class numbers.
      start_step: 0, or the step of the checkpoint that the training resumes from.
      steps: the last step.
      stop: ends the training after the current step, with a checkpoint and status 0.
    """

    workdir: Path
    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    start_step: int
    steps: int
    stop: Callable[[], None]


class Callback:
    """Base class of callbacks, to be given as `fastfcn_jax.train(…, callbacks=[…])`.

    Every method does nothing; override those that you need. An object of another class with some of
    these methods is taken as well. They are called on process 0 alone, between two steps: the
    training waits for them.

    If one raises an exception, its traceback and a warning are printed, and this callback is not
    called again. The training goes on.
    """

    def on_start(self, training: Training) -> None:
        """Before the first step, once everything has been built."""

    def on_log(self, record: dict[str, Any]) -> None:
        """A training record as in metrics.jsonl, each `train.log_every` steps: `step`, `loss`, …"""

    def on_validation(self, record: dict[str, Any]) -> None:
        """An evaluation record as in metrics.jsonl: `step`, `mIoU`, `per_class`, …"""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """A checkpoint is complete on the disk. Older ones may be deleted at the next."""

    def on_end(self, step: int, outcome: str) -> None:
        """After the last checkpoint; outcome: "finished", "stopped" (early, by a signal or a
        callback), or "failed"."""


HOOKS = ("on_start", "on_log", "on_validation", "on_checkpoint", "on_end")


class Callbacks:
    """The callbacks of one training; calls nothing on other processes than the first.

    Attributes:
      asked_to_stop: whether a callback has called `Training.stop`.
    """

    def __init__(self, given: Sequence[Any] = ()):
        self._all = list(given)
        self._active = list(given) if jax.process_index() == 0 else []
        self._saved = -1
        self.asked_to_stop = False

    def add(self, callback: Any) -> None:
        """Adds one on this process alone."""
        self._active.append(callback)

    @property
    def watch_checkpoints(self) -> bool:
        """Whether any wants to hear of them: only then does the training wait for the disk.

        The same in all processes, which have to wait together.
        """
        default = Callback.on_checkpoint
        found = (getattr(type(callback), "on_checkpoint", default) for callback in self._all)
        return any(hook is not default for hook in found)

    def start(
        self, workdir: Path, config: Mapping[str, Any], names: Sequence[str], step: int, steps: int
    ) -> None:
        self._saved = step
        self._call("on_start", Training(workdir, config, tuple(names), step, steps, self._stop))

    def record(self, record: Mapping[str, Any]) -> None:
        """A sink of `metrics_log.Records`."""
        self._call("on_log" if record["kind"] == "train" else "on_validation", record)

    def checkpoint(self, step: int, folder: Path) -> None:
        if step > self._saved:  # a score given to one that was there is not news
            self._saved = step
            self._call("on_checkpoint", step, folder)

    def end(self, step: int, outcome: str) -> None:
        self._call("on_end", step, outcome)

    def _stop(self) -> None:
        self.asked_to_stop = True

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in list(self._active):
            method = getattr(callback, hook, None)
            if method is None:
                continue
            try:
                # A copy: what a callback does to a record would change the log.
                method(*(copy.deepcopy(a) if isinstance(a, dict) else a for a in arguments))
            except Exception:
                self._active.remove(callback)
                traceback.print_exc()
                print(
                    f"warning: the callback {type(callback).__name__} failed in {hook} (above) and "
                    "is not called again; the training goes on",
                    file=sys.stderr,
                    flush=True,
                )


def check(given: Any) -> Sequence[Any]:
    """The callbacks, if each is one.

    Raises:
      UserError: it is not a list, or something in it has none of the methods.
    """
    if not isinstance(given, list | tuple):
        raise UserError(f"callbacks={given!r:.100}: give a list, callbacks=[…].")
    for callback in given:
        name = callback.__name__ if isinstance(callback, type) else type(callback).__name__
        if isinstance(callback, type):
            raise UserError(f"callbacks: {name} is a class; give an object of it, {name}().")
        if not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise UserError(f"callbacks: {name} has none of the methods {', '.join(HOOKS)}.")
    return given
