"""Kills a training with SIGKILL at random moments, resumes it, and compares with a whole one.

python benchmarks/kill_resume.py [--kills 20] [--steps 400] [--output DIR]
python benchmarks/kill_resume.py --local_every 3
python benchmarks/kill_resume.py --entry train.py --config configs/jpu_psp_camvid.py:small \
    --data_root CAMVID --kills 10 --steps 120

The kills alternate between five moments: while the decoded cache is being built (it is removed
before), while starting (import, reading, restoring, compiling), between steps, while a checkpoint
is being saved, and during an evaluation. Exit status 0: the losses of all steps, all evaluations,
the final weights, momenta and statistics, and the cache are bit-identical; every checkpoint found
after a kill could be read; and each start resumed from the newest one. With `--local_every` there
are copies on a local disk as well, so often, and the newest may be one of them.
"""

import argparse
import filecmp
import json
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402

from fastfcn_jax.checkpoints import model_folder  # noqa: E402
from fastfcn_jax.data.datasets import synthetic  # noqa: E402
from fastfcn_jax.training import metrics_log  # noqa: E402

MOMENTS = ("caching", "starting", "between steps", "saving", "evaluating")
SCENES = {"train": 240, "val": 8}


class Training:
    """A training process whose output is read line by line."""

    def __init__(self, arguments: argparse.Namespace, workdir: Path):
        self.workdir = workdir
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                arguments.entry,
                f"--config={arguments.config}",
                f"--workdir={workdir}",
                f"--config.train.steps={arguments.steps}",
                f"--config.train.save_every={arguments.save_every}",
                f"--config.train.eval_every={arguments.eval_every}",
                "--config.train.log_every=5",
                f"--config.data.root={arguments.data_root}",
                f"--config.data.cache={cache_of(workdir)}",
                *local_flags(arguments, workdir),
                *arguments.rest,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def step(self) -> int:
        """The last step that the output reported."""
        found = [re.match(r"step (\d+)/", line) for line in self.lines]
        return max((int(match[1]) for match in found if match), default=-1)

    def kill_at(self, moment: str, rng: random.Random, ahead: int) -> bool:
        """Kills at the given moment, `ahead` steps later; False if the training ended before."""
        if moment == "caching":
            share = rng.uniform(0, 0.95) * cached_bytes(self.workdir.with_name("alone"))
            self._wait(lambda: cached_bytes(self.workdir) > share)
            time.sleep(rng.uniform(0, 0.01))
        elif moment == "starting":
            said = rng.randrange(8)  # lines; after the seventh it compiles
            self._wait(lambda: len(self.lines) >= said or self.step >= 0)
            time.sleep(rng.uniform(0, 0.5))
        else:
            self._wait(lambda: self.step >= 0)
            target = self.step + rng.randrange(ahead)
            self._wait(lambda: self.step >= target)
        if moment == "saving":
            self._wait(lambda: any("tmp" in p.name for p in self._checkpoints()))
            time.sleep(rng.uniform(0, 0.05))
        if moment == "evaluating":
            seen = sum("evaluating" in line for line in self.lines)
            self._wait(lambda: sum("evaluating" in line for line in self.lines) > seen)
            time.sleep(rng.uniform(0, 0.1))
        if self.process.poll() is not None:
            return False
        self.process.kill()
        self.process.wait()
        return True

    def _checkpoints(self) -> list[Path]:
        folder = self.workdir / "checkpoints"
        try:
            return list(folder.iterdir()) if folder.is_dir() else []
        except OSError:
            return []

    def _wait(self, condition) -> None:
        while self.process.poll() is None and not condition():
            time.sleep(0.001)


def local_flags(arguments: argparse.Namespace, workdir: Path) -> list[str]:
    if not arguments.local_every:
        return []
    return [
        f"--config.train.local_checkpoints={workdir.with_name(f'{workdir.name}-local')}",
        f"--config.train.local_save_every={arguments.local_every}",
    ]


def newest_step(workdir: Path) -> int:
    """The latest step in the workdir or on the local disk; 0 if nothing is saved."""
    copies = workdir.with_name(f"{workdir.name}-local").glob("*/[0-9]*.npz")
    steps = [*model_folder.finished_steps(workdir), *(int(path.stem) for path in copies)]
    return max(steps, default=0)


def write_scenes(folder: Path) -> None:
    """Generated street scenes as PNG files, in the layout of `data.name="folder"`."""
    for split, count in SCENES.items():
        source = synthetic.StreetScenes(split, (256, 512))
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            sample = source[i]
            name = f"{split}/{sample.id}.png"
            cv2.imwrite(str(folder / "images" / name), sample.image[..., ::-1])
            cv2.imwrite(str(folder / "labels" / name), sample.label)
    classes = {"classes": list(synthetic.INFO.class_names)}
    (folder / "classes.json").write_text(json.dumps(classes))


def cache_of(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}-cache")


def cached_bytes(workdir: Path) -> int:
    """How many bytes of the decoded cache are written."""
    return sum(path.stat().st_size for path in cache_of(workdir).glob("*/pixels.bin"))


def unreadable(workdir: Path) -> list[str]:
    """The checkpoints that a kill left unreadable, in words."""
    problems = []
    for step in model_folder.finished_steps(workdir):
        try:
            model_folder.verify(workdir, step)
        except model_folder.Damaged as damage:
            problems.append(f"step {step}: {damage}")
    return problems


def compare(left: Path, right: Path) -> list[str]:
    """Differences between two finished runs, in words; empty if they are bit-identical."""

    def history(workdir):
        timing = ("time", "images_per_second", "data_wait", "seconds_per_step", "seconds")
        return [
            {k: v for k, v in record.items() if k not in timing}
            for record in metrics_log.read(workdir / "metrics.jsonl")
        ]

    found = []
    ours, theirs = history(left), history(right)
    if [r["step"] for r in ours] != [r["step"] for r in theirs]:
        found.append("metrics.jsonl has other records")
    found += [
        f"{a['kind']} record of step {a['step']} differs"
        for a, b in zip(ours, theirs, strict=False)
        if a != b
    ]
    last = model_folder.finished_steps(left)[-1]
    sums = [model_folder.verify(workdir, last) for workdir in (left, right)]
    if sums[0] != sums[1]:
        found.append(f"the arrays of step {last} differ")
    for name in ("pixels.bin", "index.jsonl"):
        ours, theirs = (next(cache_of(workdir).glob(f"*/{name}")) for workdir in (left, right))
        if not filecmp.cmp(ours, theirs, shallow=False):
            found.append(f"{name} of the decoded cache differs")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entry", default="tests/tiny.py")
    parser.add_argument("--config", default="tests/tiny.py")
    parser.add_argument("--data_root", help="folder of the data set; default: generated scenes")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--save_every", type=int, default=10)
    parser.add_argument("--eval_every", type=int, default=25)
    parser.add_argument("--local_every", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "kill_resume")
    parser.add_argument("rest", nargs="*", help="further flags of the training")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    shutil.rmtree(arguments.output, ignore_errors=True)
    alone, killed = arguments.output / "alone", arguments.output / "killed"
    if not arguments.data_root:
        arguments.data_root = arguments.output / "scenes"
        arguments.rest.append("--config.data.name=folder")
        write_scenes(arguments.data_root)

    reference = Training(arguments, alone)
    if reference.process.wait():
        print("\n".join(reference.lines))
        return 1
    tally = dict.fromkeys(MOMENTS, 0)
    problems = []
    ahead = max(arguments.steps // arguments.kills, 1)
    while (count := sum(tally.values())) < arguments.kills:
        moment = MOMENTS[count % len(MOMENTS)]
        newest = newest_step(killed)
        if moment == "caching":
            shutil.rmtree(cache_of(killed), ignore_errors=True)
        training = Training(arguments, killed)
        if not training.kill_at(moment, rng, ahead):
            problems.append(f"the run ended before kill {count + 1}")
            break
        if moment == "caching" and list(cache_of(killed).glob("*/finished")):
            problems.append(f"kill {count + 1} came after the cache was built")
        tally[moment] += 1
        resumed = [line for line in training.lines if line.startswith("resuming")]
        if newest and resumed and f"step {newest} " not in resumed[0]:
            problems.append(f"start {count + 1} did not resume from step {newest}: {resumed[0]}")
        problems += unreadable(killed)
        print(
            f"kill {count + 1:2d} {moment:13s} after step {training.step:4d}, "
            f"checkpoints {model_folder.finished_steps(killed)}",
            flush=True,
        )
    last = Training(arguments, killed)
    if last.process.wait():
        problems.append("the last start failed: " + " | ".join(last.lines[-3:]))
    else:
        problems += compare(alone, killed)
    summary = {
        "kills": tally,
        "steps": arguments.steps,
        "config": arguments.config,
        "starts": len(json.loads((killed / "run.json").read_text())["starts"]),
        "problems": problems,
    }
    print(json.dumps(summary, indent=2))
    print("bit-identical to the uninterrupted run" if not problems else "NOT identical")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
