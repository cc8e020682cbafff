"""Measures what docs/performance.md has open for want of a GPU, row by row, in pieces.

python benchmarks/gpu_table.py --out DIR --minutes 10

Rows run one after the other, the most important first, each in a process of its own; none is
begun after `--minutes`. A row that is finished is kept in DIR and not run again, so the same
command goes on where the last one stopped. Prints the table of all finished rows, in Markdown.
Needs what `versus_mmseg.py` needs. `--rehearse` takes small images and few rounds, on any
machine: it shows that everything is in place, and its figures mean nothing.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = "mmseg"
TUNED = "mmseg+channels_last+compile+bf16"

flags.DEFINE_string("out", None, "Folder of the results.", required=True)
flags.DEFINE_float("minutes", 10.0, "No row is begun later than this.")
flags.DEFINE_bool("rehearse", False, "Small images, one round, on any machine.")


class Aim(NamedTuple):
    """of: speed or memory, ours over the `other` contender's; aim and floor: of that ratio."""

    of: str
    other: str
    aim: float
    floor: float


class Row(NamedTuple):
    """One process: Python's arguments, and what its figures are compared with, if anything."""

    name: str
    command: list[str]
    aims: tuple[Aim, ...] = ()

    @property
    def file(self) -> str:
        """Its figures once it is finished; beside it lies what it printed."""
        return re.sub(r"[^a-z0-9]+", "-", self.name) + ".json"


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
        return Row(f"{mode}, {head}, batch {batch}, {contenders.split(',')[-1]}", command, aims)

    def training(head: str, batch: int = 8) -> Row:
        aims = Aim("speed", TUNED, 2.0, 1.3), Aim("speed", SHIPPED, 5.0, 3.0)
        return versus("train", head, batch, f"{SHIPPED},{TUNED},ours+bf16", *aims)

    def inference(head: str) -> Row:
        aim = Aim("speed", TUNED, 2.0, 1.3)
        return versus("inference", head, 1, f"{TUNED},ours+bf16", aim)

    def memory(head: str) -> Row:
        return versus("train", head, 2, f"{SHIPPED},ours", Aim("memory", SHIPPED, 0.6, 0.8))

    def bench(config: str) -> Row:
        small = ["--batch=2", "--rounds=1", "--config.data.crop_size=(64, 128)"]
        command = ["-m", "fastfcn_jax.bench", f"--config=configs/{config}"]
        return Row(f"bench, {config}", command + (small if rehearse else []))

    def forms(*families: str) -> Row:
        small = ["--rounds=1", "--size", "8", "16"] if rehearse else ["--batch=8"]
        command = ["benchmarks/time_forms.py", *families, *small, "--dtype=bfloat16"]
        return Row(f"forms, {' '.join(families)}", command)

    return [
        training("psp"),
        inference("psp"),
        bench("jpu_psp_cityscapes.py"),
        training("enc"),
        training("aspp"),
        forms("depthwise", "dilated", "normalized", "batch_norm", "upsampling", "loss"),
        inference("enc"),
        inference("aspp"),
        bench("official_encnet_pcontext.py:r101"),
        memory("psp"),
        memory("aspp"),
        memory("enc"),
        training("psp", 16),
        training("enc", 16),
        training("aspp", 16),
    ]


def run(row: Row, folder: Path) -> str:
    """Runs a row; returns "" or what went wrong. Leaves its output, and figures once finished."""
    path = folder / row.file
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    command = [sys.executable, *row.command]
    if row.aims:
        command.append(f"--json={unfinished.absolute()}")
    with path.with_suffix(".log").open("w") as log:
        status = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    if status:
        return f"exit status {status}, see {path.with_suffix('.log')}"
    if not row.aims:
        unfinished.touch()
    unfinished.replace(path)
    return ""


def table(finished: list[Row], folder: Path) -> str:
    """The measured ratios beside their aims, in Markdown."""
    lines = ["| row | measured | aim | floor |", "|---|---|---|---|"]
    for row in finished:
        summary = json.loads((folder / row.file).read_text()) if row.aims else {}
        for aim in row.aims:
            value = measured(aim, summary)
            lines.append(
                f"| {row.name}: {aim.of} over {aim.other} | {value:.2f} | {aim.aim} | {aim.floor} |"
            )
    return "\n".join(lines)


def measured(aim: Aim, summary: dict) -> float:
    """The speed or memory of ours over the other contender's, of one comparison."""
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
    finished, failed, left = [], [], []
    for row in rows(f.rehearse):
        if not (folder / row.file).exists():
            if time.monotonic() - start > 60 * f.minutes:
                left.append(row)
                continue
            if problem := run(row, folder):
                failed.append(row)
                print(f"failed: {row.name}: {problem}", flush=True)
                continue
            print(f"{time.monotonic() - start:6.0f} s: {row.name}", flush=True)
        finished.append(row)
    print(table(finished, folder))
    if left:
        print(f"{len(left)} rows left; the same command goes on with: {left[0].name}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
