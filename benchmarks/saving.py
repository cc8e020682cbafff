"""Times training steps with checkpoints and without, in turns.

python benchmarks/saving.py [--crop 128 256] [--batch 2] [--every 10] [--rounds 10] [--json FILE]

A round is `--every` steps that begin with a save and as many that do not; which comes first
alternates. Its time includes waiting until the checkpoint is on the disk, so that no work of one
is counted in the other. Printed are medians over the rounds: of a step's time and processor time in
both and of their ratios, and of the time for which the loop stood still in a save, which is all
that a device of its own would notice. On a busy machine the processor times say more.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastfcn_jax.config import experiment  # noqa: E402
from fastfcn_jax.training import loop, setup  # noqa: E402
from fastfcn_jax.training.callbacks import Callbacks  # noqa: E402


def open_run(arguments: argparse.Namespace, workdir: Path) -> setup.Run:
    config = experiment.load(arguments.config)
    config.data.update(name="synthetic", crop_size=tuple(arguments.crop), threads=1)
    config.data.update(resize_scale=(512, 256), test_scale=(512, 256))
    config.train.update(batch_size=arguments.batch, log_every=arguments.every, eval_every=0)
    return setup.prepare(config, workdir, Callbacks(()))


def block(run: setup.Run, batches, steps: int, saves: bool) -> dict[str, float]:
    """Runs `steps` steps as the loop does; seconds a step, and of processor time, and blocked."""
    in_flight: deque = deque()
    started, worked, blocked = time.monotonic(), time.process_time(), 0.0
    for index in range(steps):
        batch, indices = next(batches)
        run.state, metrics = run.train_step(run.state, batch, run.numbers(run.step))
        run.step += 1
        in_flight.append((run.step, metrics, indices))
        loop._read_metrics(run, in_flight, leave=0 if index == 0 else loop.IN_FLIGHT)
        if index == 0:
            jax.block_until_ready(run.state)
            before = time.monotonic()
            if saves:
                loop._save(run)
            blocked = time.monotonic() - before
    loop._read_metrics(run, in_flight, leave=0)
    run.checkpoints.wait()
    return {
        "step": (time.monotonic() - started) / steps,
        "processor": (time.process_time() - worked) / steps,
        "blocked": blocked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="jpu_psp_cityscapes")
    parser.add_argument("--crop", type=int, nargs=2, default=(128, 256), help="height, width")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workdir", type=Path, help="where to save; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as folder:
        run = open_run(arguments, Path(folder))
        batches = loop.device_batches(run.config, run.source, run.strategy, 0)
        block(run, batches, 2, True)  # compiles; the first checkpoint is read back
        for index in range(arguments.rounds):
            for saves in (False, True) if index % 2 else (True, False):
                found[saves].append(block(run, batches, arguments.every, saves))
        size = sum(x.nbytes for x in jax.tree.leaves(run.state))
        run.checkpoints.close()
        run.close()
    report(found, size, arguments)


def report(found: dict[bool, list[dict[str, float]]], size: int, arguments) -> None:
    middle = {
        saves: {name: statistics.median(r[name] for r in rows) for name in rows[0]}
        for saves, rows in found.items()
    }
    print(f"state: {size / 1e6:.0f} MB; a checkpoint every {arguments.every} steps")
    for name, words in (("step", "time"), ("processor", "processor time")):
        pairs = zip(found[True], found[False], strict=True)
        ratio = statistics.median(a[name] / b[name] for a, b in pairs)
        without, with_ = middle[False][name], middle[True][name]
        print(f"{words} of a step: {without:.3f} s without, {with_:.3f} s with, ratio {ratio:.3f}")
    print(f"the loop stands still for {middle[True]['blocked'] * 1e3:.0f} ms a save")
    if arguments.json:
        rows = {"with": found[True], "without": found[False], "state_bytes": size}
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
