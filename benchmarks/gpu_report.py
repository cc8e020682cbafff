"""The figures of a compiled GPU program and its notable kernels, printed."""

import collections
from typing import Any

import hlo
import ptx

# Attainable, measured with large matrix products and copies on one such card.
H200 = hlo.Machine(flops=790e12, float32_flops=395e12, bandwidth=4.3e12)
NOTABLE = 20e-6  # seconds that a kernel has to issue to be listed


def figures(kernels: list[hlo.Kernel], launches: ptx.Launches, memory: Any) -> dict[str, Any]:
    """Sums over all kernels; `memory` is XLA's own analysis."""
    codes = {launch.name: launch for launch in launches.kernels}
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    matrix = [k for k in kernels if k.kind in ("conv", "dot")]
    rest = [k for k in kernels if k.kind not in ("conv", "dot")]
    return {
        "kernels": len(kernels),
        "peak_gib": peak / 2**30,
        "temporary_gib": memory.temp_size_in_bytes / 2**30,
        "tflop": sum(k.flops for k in kernels) / 1e12,
        "gigabytes": sum(k.bytes for k in kernels) / 1e9,
        "matrix_ms": 1e3 * sum(k.seconds(H200) for k in matrix),
        "rest_ms": 1e3 * sum(k.seconds(H200) for k in rest),
        "issue_ms": 1e3 * sum(launch.issue_seconds for launch in launches.kernels),
        "floor_ms": 1e3 * sum(_floor(k, codes.get(k.name)) for k in kernels),
        "outside": launches.outside,
        "spilled": max((launch.code.spilled for launch in launches.kernels), default=0),
    }


def _floor(kernel: hlo.Kernel, launch: ptx.Launch | None) -> float:
    return max(kernel.seconds(H200), launch.issue_seconds if launch else 0.0)


def header() -> None:
    names = ["peak GiB", "temp GiB", "TFLOP", "GB", "matrix ms", "rest ms", "issue ms", "floor ms"]
    names += ["outside", "spilled B"]
    print(f"{'program':44} kernels " + " ".join(f"{n:>9}" for n in names))


def row(found: dict[str, Any]) -> None:
    print(
        f"{found['name']:44} {found['kernels']:7} {found['peak_gib']:9.2f} "
        f"{found['temporary_gib']:9.2f} {found['tflop']:9.3f} {found['gigabytes']:9.2f} "
        f"{found['matrix_ms']:9.3f} {found['rest_ms']:9.3f} {found['issue_ms']:9.3f} "
        f"{found['floor_ms']:9.3f} {found['outside']:9} {found['spilled']:9}",
        flush=True,
    )


def largest(kernels: list[hlo.Kernel], count: int) -> None:
    """The places in the source whose kernels have the highest floors of bytes and arithmetic."""
    groups = collections.defaultdict(list)
    for kernel in kernels:
        groups[kernel.kind, kernel.source].append(kernel)
    ordered = sorted(groups, key=lambda g: -sum(k.seconds(H200) for k in groups[g]))
    for kind, source in ordered[:count]:
        group = groups[kind, source]
        seconds, moved = (
            sum(x) for x in zip(*((k.seconds(H200), k.bytes) for k in group), strict=True)
        )
        print(
            f"    {1e3 * seconds:8.3f} ms {moved / 1e9:8.3f} GB {len(group):4} x {kind:8} {source}"
        )


def slow(kernels: list[hlo.Kernel], launches: ptx.Launches) -> None:
    """Kernels that spill registers, or issue more than a third longer than they move bytes."""
    codes = {launch.name: launch for launch in launches.kernels}
    for kernel in kernels:
        if (launch := codes.get(kernel.name)) and _is_slow(kernel, launch):
            code = launch.code
            print(
                f"    {1e3 * launch.issue_seconds:8.3f} ms issue, "
                f"{1e3 * kernel.seconds(H200):.3f} ms bytes, {code.registers} registers, "
                f"{code.spilled} B spilled, occupancy {launch.occupancy:.2f}"
                f"{', loops' if code.loops else ''}  {kernel.name} {kernel.source}"
            )


def _is_slow(kernel: hlo.Kernel, launch: ptx.Launch) -> bool:
    long = launch.issue_seconds > max(4 / 3 * kernel.seconds(H200), NOTABLE)
    tiled = kernel.name.startswith("gemm_fusion")  # in tiles that the device chooses by timing
    return launch.code.spilled > 0 or (long and not tiled)
