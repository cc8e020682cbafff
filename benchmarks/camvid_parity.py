"""Whole trainings on CamVid by mmsegmentation 1.2.2 and by this package, with the same recipe.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/camvid_parity.py --runs ours:0,mmseg:0
    --root CAMVID --output DIR
python benchmarks/camvid_parity.py --report --output DIR

Each run is a process of its own, `train.py` or `camvid_mmseg.py`, with the same configuration
flags. It leaves SIDE-SEED.json: its records (loss of every step; mIoU and IoU per class at each
evaluation), each with the seconds and CPU seconds that the process had used by then.
Flags after `--` are given to both, for example `-- --config.train.steps=9000`.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # works without installing the package

from fastfcn_jax.config import experiment  # noqa: E402

SCRIPTS = {"ours": "train.py", "mmseg": "benchmarks/camvid_mmseg.py"}
POLL = 0.2  # seconds between two checks of a run's records

# Settings that do not change the training: what is written when, and threads for a single core.
SETTINGS = {
    "train.log_every": 25,
    "train.save_every": 1_000_000,
    "train.pictures": 0,
    "data.threads": 1,
    "data.prefetch": 1,
}


def command(side: str, seed: int, workdir: Path, arguments) -> list[str]:
    """The training command of a run."""
    settings = {**SETTINGS, "data.root": arguments.root, "seed": seed}
    return [
        sys.executable,
        str(ROOT / SCRIPTS[side]),
        f"--config={arguments.config}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in settings.items()),
        *arguments.overrides,
    ]


def run(side: str, seed: int, arguments) -> None:
    """Trains to the end and writes `SIDE-SEED.json`."""
    workdir = arguments.output / f"{side}-{seed}"
    words = command(side, seed, workdir, arguments)
    started = time.monotonic()
    with (arguments.output / f"{side}-{seed}.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        stamps = _watch(process, workdir / "metrics.jsonl", started)
    if process.returncode:
        sys.exit(f"error: {side}:{seed} failed; see {log.name}.")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [{**json.loads(line), **stamp} for line, stamp in zip(lines, stamps, strict=True)]
    result = {"side": side, "seed": seed, "command": words, "records": records}
    (arguments.output / f"{side}-{seed}.json").write_text(json.dumps(result) + "\n")


def _watch(process: subprocess.Popen, path: Path, started: float) -> list[dict[str, float]]:
    """Waits for the process; returns when each line of `path` appeared: seconds, CPU seconds."""
    stamps: list[dict[str, float]] = []
    while True:
        ended = process.poll() is not None
        count = path.read_bytes().count(b"\n") if path.is_file() else 0
        if count > len(stamps):
            wall = time.monotonic() - started
            cpu = stamps[-1]["cpu"] if ended else _cpu_seconds(process.pid)
            stamps += [{"wall": wall, "cpu": cpu}] * (count - len(stamps))
        if ended:
            return stamps
        time.sleep(POLL)


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def evaluations(result: dict) -> dict[int, dict]:
    """The evaluations of a run by step."""
    return {r["step"]: r for r in result["records"] if r["kind"] == "eval"}


def seconds_per_step(result: dict, clock: str) -> float:
    """Median over the spans between two training records without an evaluation between them.

    The first span, which includes compilation, is left out.
    """
    records = result["records"]
    spans = [
        (after[clock] - before[clock]) / (after["step"] - before["step"])
        for before, after in itertools.pairwise(records[1:])
        if before["kind"] == after["kind"] == "train"
    ]
    return float(np.median(spans))


def mean_loss(result: dict, start: int, stop: int) -> float:
    """Mean loss of the steps after `start` up to `stop`."""
    losses = np.concatenate([r["losses"] for r in result["records"] if r["kind"] == "train"])
    return float(losses[start:stop].mean())


def report(folder: Path) -> str:
    """The runs of a folder side by side, as Markdown."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9]*.json"))]
    if not results:
        sys.exit(f"error: {folder} holds no runs; train some first (--runs).")
    sides = {s: [r for r in results if r["side"] == s] for s in SCRIPTS}
    runs = [r for s in SCRIPTS for r in sides[s]]
    steps = sorted(set.intersection(*({*evaluations(r)} for r in runs)))
    names = [f"{r['side']} {r['seed']}" for r in runs]

    def row(name, *cells):
        return f"| {name} | " + " | ".join(cells) + " |"

    def head(name, *cells):
        return [row(name, *cells), "|---" * (len(cells) + 1) + "|"]

    lines = head("mIoU after step", *names)
    for step in steps:
        lines.append(row(step, *(f"{evaluations(r)[step]['mIoU']:.2f}" for r in runs)))
    lines += ["", *head("mean loss of steps", *names)]
    for start, stop in zip([0, *steps], steps, strict=False):
        lines.append(
            row(f"{start + 1} to {stop}", *(f"{mean_loss(r, start, stop):.4f}" for r in runs))
        )
    lines += ["", *head("IoU at the end", *names, *(f"{s}, mean" for s in SCRIPTS))]
    for name in evaluations(runs[0])[steps[-1]]["per_class"]:
        values = [evaluations(r)[steps[-1]]["per_class"][name]["IoU"] or 0.0 for r in runs]
        means = [
            np.mean([v for v, r in zip(values, runs, strict=True) if r["side"] == s])
            for s in SCRIPTS
        ]
        lines.append(row(name, *(f"{v:.1f}" for v in (*values, *means))))
    lines += ["", *head("", *names)]
    for title, value in (
        ("mIoU at the end", lambda r: f"{evaluations(r)[steps[-1]]['mIoU']:.2f}"),
        ("pixel accuracy", lambda r: f"{evaluations(r)[steps[-1]]['aAcc']:.2f}"),
        ("CPU seconds a step", lambda r: f"{seconds_per_step(r, 'cpu'):.3f}"),
        ("images a CPU second", lambda r: f"{batch_size(r) / seconds_per_step(r, 'cpu'):.2f}"),
        ("CPU minutes in all", lambda r: f"{r['records'][-1]['cpu'] / 60:.1f}"),
        ("minutes in all", lambda r: f"{r['records'][-1]['wall'] / 60:.1f}"),
    ):
        lines.append(row(title, *map(value, runs)))
    if all(sides.values()):
        lines += ["", verdict(sides, steps)]
    return "\n".join(lines)


def batch_size(result: dict) -> int:
    """A setting from the run's command line, or from its configuration."""
    values = dict(word.removeprefix("--").split("=", 1) for word in result["command"][2:])
    given = values.get("config.train.batch_size")
    return int(given or experiment.load(str(ROOT / values["config"])).train.batch_size)


def verdict(sides: dict[str, list[dict]], steps: list[int]) -> str:
    """One sentence: do the sides differ by more than the seeds of one side?"""
    curves = {
        side: np.array([[evaluations(r)[s]["mIoU"] for s in steps] for r in results])
        for side, results in sides.items()
    }
    apart = np.abs(curves["ours"].mean(axis=0) - curves["mmseg"].mean(axis=0))
    spread = np.maximum(*(np.ptp(curve, axis=0) for curve in curves.values()))
    within = (apart <= spread).sum()
    later = {side: curve[:, len(steps) // 2 :].mean(axis=1) for side, curve in curves.items()}
    means = ", ".join(
        f"{side} {x.mean():.2f} (seeds {x.min():.2f} to {x.max():.2f})" for side, x in later.items()
    )
    chance = stats.ttest_ind(later["ours"], later["mmseg"], equal_var=False).pvalue
    return (
        f"Means of the sides: apart by {apart[-1]:.2f} at the end ({apart.mean():.2f} on average "
        f"over the evaluations); seeds of one side by {spread[-1]:.2f} ({spread.mean():.2f}). "
        f"Within the spread at {within} of {len(steps)} evaluations.\n\n"
        f"Mean mIoU of a run from step {steps[len(steps) // 2]} on: {means}; Welch's t-test: "
        f"p = {chance:.2f}."
    )


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="", help="SIDE:SEED,... one after the other")
    parser.add_argument("--report", action="store_true", help="print the runs in --output")
    parser.add_argument("--root", default="", help="folder of CamVid, for --runs")
    parser.add_argument("--config", default="configs/jpu_psp_camvid.py:cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(words[:cut])
    if arguments.runs and not arguments.root:
        parser.error("--runs needs --root, the folder of CamVid")
    arguments.overrides = words[cut + 1 :]
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in filter(None, arguments.runs.split(",")):
        side, _, seed = name.partition(":")
        if side not in SCRIPTS or not seed.isdigit():
            sys.exit(f"error: --runs: {name!r} is not ours:SEED or mmseg:SEED.")
        run(side, int(seed), arguments)
    if arguments.report:
        print(report(arguments.output))


if __name__ == "__main__":
    main()
