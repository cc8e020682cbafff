"""`benchmarks/gpu_program.py`: the machine code of compiled GPU programs, and that none spills."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import ptx

ROOT = Path(__file__).resolve().parents[2]
SEQUENCE = """\
001: kCopy          [source        | next=002 (1) ] kCopy
002: kCustomKernel  [prev=001 (1)  | next=000 (4)] twice grid: [6, 2, 1] threads: [96, 1, 1]  shared_memory: 0 bytes
000: kCommandBuffer [prev=002 (1)  | next=005 (1) ]
    003: kCustomKernel [source       | next=004 (1)] twice grid: [3, 1, 1] threads: [32, 4, 1]  shared_memory: 0 bytes
    004: kConvolution  [prev=003 (1) | sink        ] kConvolution
005: kCustomKernel  [prev=000 (1)  | sink        ] of_a_library grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0 bytes
"""  # noqa: E501
METADATA = """\
thunk_metadata { thunk_info { profile_annotation: "fusion.7" thunk_id: 2 } thunk_kind: "k" }
thunk_metadata { thunk_info { profile_annotation: "fusion.8" thunk_id: 3 } thunk_kind: "k" }
"""


def test_each_launch_has_the_code_of_its_kernel():
    code = ptx.Code(registers=40, spilled=8, shared=0, instructions=100, loops=False)
    found = ptx.launches(SEQUENCE, METADATA, {"twice": code})
    assert [(x.name, x.blocks, x.threads) for x in found.kernels] == [
        ("fusion.7", 12, 96), ("fusion.8", 3, 128),
    ]  # fmt: skip
    assert found.outside == 3  # the copy, the first kernel and that of the library
    first = found.kernels[0]
    # 12 blocks of 3 warps with 100 instructions each; 132 * 4 of them are issued in a cycle.
    assert first.issue_seconds == pytest.approx(12 * 3 * 100 / (528 * 1.98e9))


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "expected"),
    [
        (32, 0, 128, 1.0),
        (168, 0, 128, 12 / 64),  # 65536 / (168 * 32) = 12 warps
        (33, 0, 1024, 32 / 64),  # 51 warps, but one block of 32
        (16, 100_000, 256, 16 / 64),  # two blocks of 8
        (16, 0, 32, 32 / 64),  # at most 32 blocks
    ],
)
def test_occupancy_is_limited_by_registers_shared_memory_and_blocks(
    registers, shared, threads, expected
):
    code = ptx.Code(registers, 0, shared, 1, False)
    assert ptx.Launch("", 1, threads, code).occupancy == expected


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))
    or ptx.assembler() is None,
    reason="needs jax's CUDA plugin and ptxas on PYTHONPATH: see benchmarks/gpu_program.py",
)
@pytest.mark.parametrize("show", ["train", "inference"])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_no_kernel_spills_more_than_a_few_bytes(tmp_path, show, precision):
    out = tmp_path / "figures.jsonl"
    command = [sys.executable, "benchmarks/gpu_program.py", f"--show={show}", f"--json={out}"]
    subprocess.run([*command, f"--precision={precision}"], cwd=ROOT, check=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3
    assert {row["name"]: row["spilled"] for row in rows if row["spilled"] > 64} == {}
