"""Attacks many short trainings and tells how each ended; and how memory goes over a long one.

python benchmarks/attack_runs.py [--kills 200] [--pairs 50] [--flips 250] [--memory 3000]
    [--minutes 60]

kills: SIGKILL at a random moment, again and again until the run is through. pairs: two trainings
started on one workdir, up to a second apart. flips: a bit flipped in, an end cut off or all taken
out of one file of a run's checkpoints, then a resume. Every case has to end in the weights, momenta
and losses of the run that nobody touched, bit for bit, or in one sentence with status 2 and every
file where it was. Exit status 0: all did.

The trainings are of the three-layer model of `tests/tiny.py`, each in a process forked from one
that has imported everything and not yet started JAX.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import tiny  # noqa: E402

from fastfcn_jax import models  # noqa: E402
from fastfcn_jax.checkpoints import model_folder  # noqa: E402
from fastfcn_jax.errors import UserError  # noqa: E402
from fastfcn_jax.training import loop, metrics_log  # noqa: E402

STEPS, MIDDLE = 24, 14  # of a run; of the one that a flip meets
PATIENCE = 120  # seconds after which a training counts as hanging
TIMING = ("time", "images_per_second", "data_wait", "seconds_per_step", "seconds")


class StopInTheMiddle:
    """Stands in for the agreement of processes to stop: all are asked after some steps."""

    def __init__(self):
        self.asked = 0

    def stop(self, asked: bool) -> bool:
        self.asked += 1
        return self.asked > MIDDLE


def start(workdir: Path, *, whole: bool = True, **train) -> int:
    """Begins a training in a process of its own; returns its number."""
    if child := os.fork():
        return child
    status = 1
    try:
        with (
            open(f"{workdir}.log", "a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            try:
                config = tiny.config(**{"steps": STEPS, "save_every": 3, "eval_every": 8, **train})
                if not whole:
                    loop.Agreement = StopInTheMiddle
                status = loop.train(config, workdir)
            except UserError as error:
                print(f"error: {error}")
                status = 2
            except BaseException:
                traceback.print_exc(file=log)
    finally:
        os._exit(status)


def end(child: int) -> int:
    """Waits for a training; returns its status, negative if a signal ended it, -15 if we did."""
    until = time.monotonic() + PATIENCE
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        time.sleep(0.01)
        if time.monotonic() > until:
            os.kill(child, 15)
            os.kill(child, 15)  # the first one asks it to stop
            until += PATIENCE
    return os.waitstatus_to_exitcode(ended[1])


def apart(question: Callable[[Path], Any], workdir: Path) -> Any:
    """Asks in a process of its own: this one must stay without the threads that Orbax starts."""
    answer = Path(f"{workdir}.answer")
    child = os.fork()
    if not child:
        try:
            answer.write_text(json.dumps(question(workdir)))
        finally:
            os._exit(0)
    end(child)
    found = json.loads(answer.read_text())
    answer.unlink()
    return found


def sentence(workdir: Path) -> str:
    """The last line that a training said."""
    lines = Path(f"{workdir}.log").read_text().splitlines()
    return lines[-1] if lines else ""


def result(workdir: Path) -> Any:
    """Everything that two equal runs have in common, to the last bit."""
    return apart(_result, workdir)


def _result(workdir: Path) -> list:
    records = [
        {key: value for key, value in record.items() if key not in TIMING}
        for record in metrics_log.read(workdir / "metrics.jsonl")
    ]
    return [records, model_folder.verify(workdir, STEPS)]


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def unreadable(workdir: Path) -> str:
    """Why a checkpoint that a kill left is not whole; "" if all are."""
    for step in model_folder.finished_steps(workdir):
        try:
            model_folder.verify(workdir, step)
        except model_folder.Damaged as damage:
            return f"step {step}: {damage}"
    return ""


def kills(
    count: int, output: Path, wanted: Any, seconds: float, rng: random.Random
) -> Iterator[str]:
    """Yields how each of `count` kills ended; a run goes on under them until it is through."""
    run = 0
    while count > 0:
        workdir, killed = output / f"kill-{run}", 0
        run += 1
        while True:
            child = start(workdir)
            if count > 0:
                time.sleep(rng.uniform(0, seconds))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, 9)
            status = end(child)
            if status != -9:
                break
            killed, count = killed + 1, count - 1
            if fault := apart(unreadable, workdir):
                yield f"BAD: an unreadable checkpoint after a kill: {fault}"
        if status or result(workdir) != wanted:
            yield f"BAD: status {status} after {killed} kills: {sentence(workdir)}"
        yield from ["bit-identical after being killed"] * killed
        shutil.rmtree(workdir)


def pairs(count: int, output: Path, wanted: Any, rng: random.Random) -> Iterator[str]:
    """Yields how two trainings on one workdir ended."""
    for number in range(count):
        workdir = output / f"pair-{number}"
        first = start(workdir)
        time.sleep(rng.uniform(0, 1))
        statuses = sorted([end(start(workdir)), end(first)])
        said = Path(f"{workdir}.log").read_text()
        refused = said.count("error: another training is running in")
        if statuses == [0, 2] and refused == 1 and result(workdir) == wanted:
            yield "one trained bit-identically, the other was refused"
        elif statuses == [0, 0] and result(workdir) == wanted:
            yield "one came after the other, bit-identical"
        else:
            yield f"BAD: statuses {statuses}: {sentence(workdir)}"
        shutil.rmtree(workdir, ignore_errors=True)


def spoil(path: Path, rng: random.Random) -> str:
    """Does one harm to a file; returns which."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "flip", "cut", "empty"))
    if kind == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[rng.randrange(len(content) + 1) :]
    else:
        content.clear()
    path.write_bytes(content)
    return kind


def flips(count: int, output: Path, middle: Path, wanted: Any, rng: random.Random) -> Iterator[str]:
    """Yields how runs ended that were resumed with one spoilt file in their checkpoints."""
    workdir = output / "flip"
    for _ in range(count):
        shutil.copytree(middle, workdir)
        place = workdir / "checkpoints"
        if rng.random() < 0.7:  # the others are opened, but not needed
            place /= str(MIDDLE)
        paths = sorted(path for path in place.rglob("*") if path.is_file())
        path = rng.choice(paths)
        kind = spoil(path, rng)
        before = files(workdir / "checkpoints")
        status = end(start(workdir))
        place = path.relative_to(workdir)
        if status == 0 and result(workdir) == wanted:
            aside = "set aside" if (workdir / "damaged_checkpoints").exists() else "not needed"
            yield f"bit-identical, what was spoilt was {aside}"
        elif status == 2 and files(workdir / "checkpoints") == before:
            yield "one sentence, nothing touched"
        else:
            yield f"BAD: status {status} after {kind} in {place}: {sentence(workdir)}"
        shutil.rmtree(workdir)


def memory(steps: int, output: Path) -> list[str]:
    """Resident memory of one long training at every 500th step, as rows of a table."""
    workdir, rows, seen = output / "memory", [], 0
    child = start(workdir, steps=steps, save_every=100, eval_every=250)
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.02)
        path = workdir / "metrics.jsonl"
        lines = path.read_bytes().splitlines() if path.is_file() else []
        step = json.loads(lines[-2])["step"] if len(lines) > 1 else 0
        if step >= seen + 500:
            seen = step // 500 * 500
            status = Path(f"/proc/{child}/status").read_text().splitlines()
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
            rows.append(f"step {step}: {resident / 1024:.0f} MiB")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--flips", type=int, default=250)
    parser.add_argument("--memory", type=int, default=3000, help="steps; 0: left out")
    parser.add_argument("--minutes", type=float, default=60, help="each attack ends at a third")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "attack_runs")
    arguments = parser.parse_args()
    rng, output = random.Random(arguments.seed), arguments.output
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    models.build = tiny.build
    os.environ["XDG_CACHE_HOME"] = str(output / "cache")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for name in ("middle", "warm", "alone"):  # the first one fills the compilation cache
        began = time.monotonic()
        status = end(start(output / name, whole=name != "middle"))
        if status:
            print(Path(f"{output / name}.log").read_text())
            return 1
        seconds = time.monotonic() - began
    wanted = result(output / "alone")
    tally: Counter[str] = Counter()
    for cases in (
        kills(arguments.kills, output, wanted, seconds, rng),
        pairs(arguments.pairs, output, wanted, rng),
        flips(arguments.flips, output, output / "middle", wanted, rng),
    ):
        until = time.monotonic() + 20 * arguments.minutes
        for outcome in cases:
            tally[outcome] += 1
            if outcome.startswith("BAD"):
                print(outcome, flush=True)
            if time.monotonic() > until:
                break
    if arguments.memory:
        print("\n".join(memory(arguments.memory, output)))
    for outcome, number in tally.most_common():
        print(f"{number:4d}  {outcome}")
    return any(outcome.startswith("BAD") for outcome in tally)


if __name__ == "__main__":
    sys.exit(main())
