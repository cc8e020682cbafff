"""Runs the open GPU measurements of docs/background/performance.md, row by row, resumably.

python benchmarks/gpu_table.py --out DIR --minutes 10

Rows run one after the other, the most important first, each in a process of its own, which is
killed after `--minutes`. Finished rows are kept in DIR: the same command continues where the last
one stopped; rows that failed are tried again after all others. DIR/table.txt (Markdown) lists the
finished rows and is updated after each; DIR/cache has the compiled programs.
Needs the same packages as `versus_mmseg.py`. `--rehearse` runs small images and few rounds on any
machine, to see that everything is in place; its figures mean nothing.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = "mmseg"
TUNED = "mmseg+channels_last+compile+bf16"
GRAPHS = f"{TUNED}+cudagraphs"
LIMIT = 480.0  # seconds per row, most of them for compilation
FORMS = ("depthwise", "dilated", "normalized", "batch_norm", "upsampling", "loss")

flags.DEFINE_string("out", None, "Folder of the results.", required=True)
flags.DEFINE_float("minutes", 10.0, "Stop after this time.")
flags.DEFINE_bool("rehearse", False, "Small images, one round, on any machine.")


class Aim(NamedTuple):
    """A target for the ratio of speed or memory, ours to the `other` contender's."""

    of: str
    other: str
    aim: float
    floor: float


class Row(NamedTuple):
    """One process: its arguments for Python, and the targets its figures are compared with."""

    name: str
    command: list[str]
    aims: tuple[Aim, ...] = ()
    limit: float = LIMIT

    def file(self, kind: str) -> str:
        """Paths: json has the figures once finished, log the output, failed how often it failed."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.name)}.{kind}"


def rows(rehearse: bool) -> list[Row]:
    """All rows, the most important first."""

    def versus(mode: str, head: str, batch: int, contenders: str, *aims: Aim) -> Row:
        height, width = (1024, 2048) if mode == "inference" else (512, 1024)
        size = (64, 128) if rehearse else (height, width)
        command = [
            "benchmarks/versus_mmseg.py",
            *(f"--mode={mode}", f"--head={head}", f"--batch={batch}"),
            *(f"--height={size[0]}", f"--width={size[1]}", f"--contenders={contenders}"),
            "--rounds=1" if rehearse else "--gpu",
        ]
        return Row(f"{mode}, {head}, batch {batch}", command, aims)

    def training(head: str, batch: int = 8) -> Row:
        aims = Aim("speed", TUNED, 2.0, 1.3), Aim("speed", SHIPPED, 5.0, 3.0)
        return versus("train", head, batch, f"{SHIPPED},{TUNED},ours+bf16", *aims)

    def inference(head: str, other: str = TUNED) -> Row:
        return versus("inference", head, 1, f"{other},ours+bf16", Aim("speed", other, 2.0, 1.3))

    def graphs(head: str) -> Row:
        return inference(head, GRAPHS)._replace(name=f"inference, {head}, batch 1, cudagraphs")

    def memory(head: str) -> Row:
        return versus("train", head, 2, f"{SHIPPED},ours", Aim("memory", SHIPPED, 0.6, 0.8))

    def bench(config: str) -> Row:
        small = ["--batch=2", "--rounds=1", "--config.data.crop_size=(64, 128)"]
        command = ["-m", "fastfcn_jax.bench", f"--config=configs/{config}"]
        command.append("--config.model.precision=bfloat16")
        return Row(f"bench, {config}", command + (small if rehearse else []))

    def forms(family: str) -> Row:
        small = ["--rounds=1", "--size", "8", "16"] if rehearse else ["--batch=8"]
        command = ["benchmarks/time_forms.py", family, *small, "--dtype=bfloat16"]
        return Row(f"forms, {family}", command)

    return [
        training("psp"),
        inference("psp"),
        memory("psp"),
        training("enc"),
        training("aspp"),
        inference("enc"),
        inference("aspp"),
        graphs("psp"),
        memory("aspp"),
        memory("enc"),
        training("psp", 16),
        training("enc", 16),
        training("aspp", 16),
        graphs("enc"),
        graphs("aspp"),
        bench("jpu_psp_cityscapes.py"),
        bench("official_encnet_pcontext.py:r101"),
        *map(forms, FORMS),
    ]


def run(row: Row, folder: Path, seconds: float) -> str:
    """Runs a row for at most `seconds`; returns "" or what went wrong.

    A row counts as failed from its start, because it may crash this process as well. The count is
    taken back when it finishes, or is stopped before its own time limit.
    """
    figures, count, log = (folder / row.file(kind) for kind in ("json", "failed", "log"))
    unfinished = figures.with_suffix(".part")
    unfinished.write_text("")
    before = failures(row, folder)
    count.write_text(str(before + 1))
    status = finish(
        [sys.executable, *row.command, f"--json={unfinished.absolute()}"],
        caching(folder / "cache"),
        log,
        min(row.limit, seconds),
    )
    if status == 0:
        unfinished.replace(figures)
        count.unlink()
        return ""
    unfinished.unlink()
    if status is not None:
        return f"exit status {status}, see {log}"
    if seconds < row.limit:
        count.write_text(str(before))
        return f"cut short after {seconds:.0f} s"
    return f"not finished in {row.limit:.0f} s, see {log}"


def finish(command: list[str], environment: dict, log: Path, seconds: float) -> int | None:
    """A process's exit status; None if it took longer and was killed with its children."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def caching(cache: Path) -> dict[str, str]:
    """Environment with caches, so that a repeated row neither compiles nor tunes again."""
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str((cache / "xla").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": str((cache / "inductor").absolute()),
    }


def failures(row: Row, folder: Path) -> int:
    """How often a row has failed so far."""
    path = folder / row.file("failed")
    return int(path.read_text()) if path.exists() else 0


def table(every: list[Row], folder: Path) -> str:
    """Markdown: the measured ratios of finished rows with their targets, and what failed."""
    lines = ["| row | measured | aim | floor |", "|---|---|---|---|"]
    finished = [row for row in every if (folder / row.file("json")).exists()]
    for row in finished:
        for aim in row.aims:
            value = measured(aim, json.loads((folder / row.file("json")).read_text()))
            lines.append(
                f"| {row.name}: {aim.of} over {aim.other} | {value:.2f} | {aim.aim} | {aim.floor} |"
            )
    lines += ["", f"{len(finished)} of {len(every)} rows are finished."]
    for row in every:
        if times := failures(row, folder):
            lines.append(f"Failed {times} times: {row.name}, see {row.file('log')}")
    return "\n".join(lines)


def measured(aim: Aim, summary: dict) -> float:
    """The ratio of speed or memory, ours to the other contender's, in one comparison."""
    (ratio,) = (
        ratio
        for names, ratio in summary["time_ratios"].items()
        if names.split(" / ")[1] == aim.other
    )
    return 1.0 / ratio["median"] if aim.of == "speed" else ratio["memory"]


def main(_) -> None:
    f = flags.FLAGS
    folder = Path(f.out)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    every = rows(f.rehearse)
    left = [row for row in every if not (folder / row.file("json")).exists()]
    problems = []
    for row in sorted(left, key=lambda row: failures(row, folder)):
        seconds = 60 * f.minutes - (time.monotonic() - start)
        if seconds <= 0:
            break
        if problem := run(row, folder, seconds):
            problems.append(problem)
        print(f"{time.monotonic() - start:6.0f} s: {row.name}: {problem or 'done'}", flush=True)
        (folder / "table.txt").write_text(table(every, folder) + "\n")
    print(table(every, folder))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # ends its row too
    app.run(main)
