"""Kills or stops a random process of a training 20 times and goes on with another number of them.

python benchmarks/lose_hosts.py [--losses 20] [--steps 200] [--seed 0] [--output DIR]

The training of `tests/tiny.py` runs undisturbed in one process, and again in 4, 2, 3, 4, ...
processes, one of which is lost at a random moment: four times in five by SIGKILL, else by SIGSTOP.
Exit status 0: each time all others ended with status 75, a sentence that names the lost process
and no stack trace, within 30 s; and the losses of all steps are those of the undisturbed training
to a relative 1e-5. Over more steps they would not be, with any number of processes but one: sums in
another order round differently, until a maximum is that of another pixel.
"""

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import processes  # noqa: E402
import tiny  # noqa: E402

COUNTS = (4, 2, 3)  # processes of one start after the other; all divide the batch
LIMIT = 30.0  # seconds in which the others have to end
STARTING = 8.0  # seconds after a start within which a process is lost, one time in four
FARTHER = 12  # steps after a start within which it is lost else


def flags(steps: int) -> list[str]:
    """The same samples and no dropout, whose key depends on the replica."""
    return [
        f"--config.train.steps={steps}", "--config.train.batch_size=12",
        "--config.train.save_every=5", "--config.train.eval_every=0", "--config.train.log_every=1",
        "--config.model.dropout=0.0",
    ]  # fmt: skip


def steps_done(run: Path) -> int:
    return len(tiny.losses(run)) if (run / "metrics.jsonl").is_file() else 0


def lose_one(group: list, run: Path, dice: random.Random) -> tuple[str, float] | None:
    """What happened to the others and after how many seconds; None if the training was done."""
    starts = dice.random() < 0.25
    latest = time.monotonic() + dice.uniform(0.0, STARTING)
    wanted = steps_done(run) + dice.randint(1, FARTHER)
    while time.monotonic() < latest if starts else steps_done(run) < wanted:
        if all(process.poll() is not None for process in group):
            return None
        time.sleep(0.05)
    time.sleep(dice.uniform(0.0, 0.1))
    lost = dice.randrange(len(group))
    how = signal.SIGSTOP if dice.random() < 0.2 else signal.SIGKILL
    group[lost].send_signal(how)
    started = time.monotonic()
    problems = []
    for index, process in enumerate(group):
        if index != lost:
            text = process.communicate()[0]
            named = f"error: process {lost} on " in text
            if process.returncode != 75 or not named or "Traceback" in text or "absl::" in text:
                problems.append(f"process {index} ended with {process.returncode}:\n{text}")
    seconds = time.monotonic() - started
    group[lost].kill()
    group[lost].communicate()
    if seconds > LIMIT:
        problems.append(f"the others took {seconds:.0f} s to end")
    return f"{how.name} to process {lost}" + "".join(f"\n  {p}" for p in problems), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    folder = options.output or Path(tempfile.mkdtemp())
    dice = random.Random(options.seed)
    processes.finish(processes.start(folder / "whole", *flags(options.steps)), timeout=None)
    waits, bad, starts = [], 0, 0
    while True:
        count = COUNTS[starts % len(COUNTS)]
        starts += 1
        group = processes.start_several(folder / "run", count, *flags(options.steps))
        if len(waits) == options.losses:
            processes.finish(*group, timeout=None)
            break
        result = lose_one(group, folder / "run", dice)
        if result is None:
            break
        waits.append(result[1])
        bad += "\n" in result[0]
        print(f"{len(waits):3} {count} processes, {result[0]}: {result[1]:.1f} s", flush=True)
    whole, run = tiny.losses(folder / "whole"), tiny.losses(folder / "run")
    equal = len(whole) == len(run)
    error = float(np.max(np.abs(np.divide(run, whole) - 1))) if equal else np.inf
    print(
        f"{len(waits)} processes lost, {bad} times not as promised; the others ended after "
        f"{statistics.median(waits):.1f} s (median), {max(waits):.1f} s at most; {len(run)} of "
        f"{len(whole)} losses, the largest relative difference is {error:.1e}"
    )
    return int(bad > 0 or error > 1e-5 or len(waits) < options.losses)


if __name__ == "__main__":
    sys.exit(main())
