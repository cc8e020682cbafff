"""Measures every row of docs/performance.md's GPU table on this machine, in pieces.

python benchmarks/gpu_table.py --out DIR --minutes 10

Rows run one after the other, the most important first, each in a process of its own; none is
begun after `--minutes`. A row that is finished is kept in DIR and not run again, so the same
command goes on where the last one stopped. Prints the table of all finished rows, in Markdown.
Needs what `versus_mmseg.py` needs. `--rehearse` takes small images and few rounds, on any
machine: it shows that everything is in place, and its figures mean nothing.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

HERE = Path(__file__).resolve().parent
SHIPPED = "mmseg"
TUNED = "mmseg+channels_last+compile+bf16"

flags.DEFINE_string("out", None, "Folder of the results.", required=True)
flags.DEFINE_float("minutes", 10.0, "No row is begun later than this.")
flags.DEFINE_bool("rehearse", False, "Small images, one round, on any machine.")


class Row(NamedTuple):
    """One process. aims: (what is measured, aim, floor), see `ratios`."""

    name: str
    command: list[str]
    aims: tuple[tuple[str, float, float], ...] = ()


def rows(rehearse: bool) -> list[Row]:
    """All rows, the most important first."""

    def versus(mode: str, head: str, batch: int, contenders: list[str], *aims) -> Row:
        height, width = (1024, 2048) if mode == "inference" else (512, 1024)
        size = (64, 128) if rehearse else (height, width)
        command = [
            *("versus_mmseg.py", f"--mode={mode}", f"--head={head}", f"--batch={batch}"),
            *(f"--height={size[0]}", f"--width={size[1]}"),
            f"--contenders={','.join(contenders)}",
            *(("--rounds=1",) if rehearse else ("--gpu",)),
        ]
        precision = "f32" if "ours" in contenders else "bf16"
        return Row(f"{mode}-{head}-{batch}-{precision}", command, aims)

    def training(head: str, batch: int = 8) -> Row:
        aims = (f"speed over {TUNED}", 2.0, 1.3), (f"speed over {SHIPPED}", 5.0, 3.0)
        return versus("train", head, batch, [SHIPPED, TUNED, "ours+bf16"], *aims)

    def inference(head: str) -> Row:
        aim = (f"speed over {TUNED}", 2.0, 1.3)
        return versus("inference", head, 1, [TUNED, "ours+bf16"], aim)

    def memory(head: str) -> Row:
        return versus("train", head, 2, [SHIPPED, "ours"], (f"memory of {SHIPPED}", 0.6, 0.8))

    small = ["--rounds=1", "--batch=1"] if rehearse else []
    forms = "dilated normalized depthwise batch_norm pool enlarge loss".split()
    official = "configs/official_encnet_pcontext.py:r101"
    return [
        training("psp"),
        inference("psp"),
        Row("bench-psp", ["-m", "fastfcn_jax.bench", "--config=configs/jpu_psp_cityscapes.py"]),
        training("enc"),
        training("aspp"),
        inference("enc"),
        inference("aspp"),
        Row("bench-r101", ["-m", "fastfcn_jax.bench", f"--config={official}"]),
        *map(memory, ("psp", "aspp", "enc")),
        Row("forms", ["time_forms.py", *forms, *(small or ["--batch=8"]), "--dtype=bfloat16"]),
        *(training(head, 16) for head in ("psp", "enc", "aspp")),
    ]
