"""The learning rate as a function of the step.

Computed on the host and given to the training step as a number: as part of the step's program, a
change of `train.steps` or `optim.lr` would compile the whole step anew.
"""

import math
from collections.abc import Callable

from fastfcn_jax.errors import UserError

Schedule = Callable[[int], float]  # from the 0-based step


def build(o, steps: int) -> Schedule:
    """The learning rate by step that `config.optim` describes, for a run of `steps`.

    Raises:
      UserError: a step schedule without its interval.
    """
    ends = {"end_lr": o.end_lr, "steps": steps, "reaches_end": o.poly_reaches_end}
    if o.schedule == "cos":
        return cosine(lr=o.lr, warmup_steps=o.warmup_steps, **ends)
    if o.schedule == "one_cycle":
        return one_cycle(
            lr=o.lr, end_lr=o.end_lr, steps=steps, start=o.cycle_start, peak=o.cycle_peak
        )
    if o.schedule == "step":
        return drops(lr=o.lr, every=o.step_every, factor=o.step_factor, warmup_steps=o.warmup_steps)
    return poly(lr=o.lr, power=o.power, warmup_steps=o.warmup_steps, **ends)


def poly(
    *,
    lr: float,
    end_lr: float,
    power: float,
    steps: int,
    reaches_end: bool = True,
    warmup_steps: int = 0,
) -> Schedule:
    """Polynomial decay by step: end_lr + (lr - end_lr) * (1 - i / T)**power.

    T is `steps - 1` when the last step runs at `end_lr` exactly (mmengine's
    PolyLR) and `steps` otherwise (the official LR_Scheduler, mmseg 0.x). While
    i < warmup_steps the rate is multiplied by (i + 1) / warmup_steps.
    """

    def learning_rate(step):
        return end_lr + (lr - end_lr) * _remaining(step, steps, reaches_end) ** power

    return _warmed_up(learning_rate, warmup_steps)


def cosine(
    *, lr: float, end_lr: float, steps: int, reaches_end: bool = True, warmup_steps: int = 0
) -> Schedule:
    """Half a cosine by step: end_lr + (lr - end_lr) * (1 + cos(pi * i / T)) / 2; see `poly`.

    The official `--lr-scheduler cos`, with end_lr 0 and reaches_end False.
    """

    def learning_rate(step):
        return end_lr + (lr - end_lr) * _half_cosine(_remaining(step, steps, reaches_end))

    return _warmed_up(learning_rate, warmup_steps)


def drops(*, lr: float, every: int, factor: float, warmup_steps: int = 0) -> Schedule:
    """lr * factor**(i // every): the official `--lr-scheduler step`, with factor 0.1.

    Raises:
      UserError: `every` is 0.
    """
    if every < 1:
        raise UserError(
            "config.optim.schedule='step' needs config.optim.step_every: the number of steps after "
            "which the learning rate is multiplied by config.optim.step_factor."
        )

    def learning_rate(step):
        return lr * factor ** (step // every)

    return _warmed_up(learning_rate, warmup_steps)


def one_cycle(*, lr: float, end_lr: float, steps: int, start: float, peak: float) -> Schedule:
    """From start * lr up to lr over the first `peak` of the steps, and down to end_lr.

    Both ways half a cosine: torch.optim.lr_scheduler.OneCycleLR without its momentum.
    """
    top = peak * steps - 1
    last = max(steps - 1, 1)

    def learning_rate(step):
        if step <= top:
            return start * lr + (lr - start * lr) * _half_cosine(step / top if top else 0.0)
        fall = min((last - step) / (last - top), 1.0) if last > top else 0.0
        return end_lr + (lr - end_lr) * _half_cosine(max(fall, 0.0))

    return learning_rate


def _half_cosine(x: float) -> float:
    """(1 - cos(pi x)) / 2 as a squared sine: near 0, the difference would lose its digits."""
    return math.sin(math.pi / 2 * x) ** 2


def _remaining(step: int, steps: int, reaches_end: bool) -> float:
    last = max(steps - 1, 1) if reaches_end else steps
    return max(last - step, 0) / last


def _warmed_up(schedule: Schedule, warmup_steps: int) -> Schedule:
    if not warmup_steps:
        return schedule

    def learning_rate(step):
        return schedule(step) * min((step + 1) / warmup_steps, 1.0)

    return learning_rate
