"""Reads the machine code of a compiled GPU program: registers, spills, occupancy, issue floors.

XLA leaves its PTX behind (`--xla_dump_to`), and NVIDIA's assembler makes the device's code of it:
pip install --no-deps --target=DIR nvidia-cuda-nvcc-cu12, then DIR/nvidia/cuda_nvcc/bin/ptxas.
"""

import dataclasses
import importlib.util
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Of an H200: https://docs.nvidia.com/cuda/hopper-tuning-guide; the clock is its highest.
ARCHITECTURE, MULTIPROCESSORS, CLOCK = "sm_90a", 132, 1.98e9
ISSUED = 4  # instructions of a multiprocessor in one cycle, each for one warp of 32 threads
WARPS, BLOCKS, REGISTERS, SHARED = 64, 32, 65536, 233472  # limits of a multiprocessor
INSTRUCTION_BYTES = 16

_LAUNCH = re.compile(
    r"^(\s*)(\d+): (k\w+)\s+\[.*?\] ?(\S*)(?: grid: \[(\d+), (\d+), (\d+)\] "
    r"threads: \[(\d+), (\d+), (\d+)\])?"
)
_TOLD = (r"(\d+) bytes spill stores", r"Used (\d+) registers", r"(\d+) bytes smem")
_NAMED = re.compile(r'profile_annotation: "([^"]*)"\s*thunk_id: (\d+)')


@dataclasses.dataclass(frozen=True)
class Code:
    """What the assembler says of a kernel. spilled: bytes a thread; shared: bytes a block."""

    registers: int
    spilled: int
    shared: int
    instructions: int
    loops: bool


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of a kernel of XLA's own; `name` is that of its instruction in the program."""

    name: str
    blocks: int
    threads: int
    code: Code

    @property
    def warps(self) -> int:
        return -(-self.threads // 32)

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's warps that fit beside each other."""
        registers = 256 * -(-self.code.registers * 32 // 256)  # of a warp; handed out by 256
        by_registers = REGISTERS // registers // self.warps if registers else BLOCKS
        by_shared = SHARED // (self.code.shared + 1024)
        return min(by_registers, by_shared, BLOCKS, WARPS // self.warps) * self.warps / WARPS

    @property
    def issue_seconds(self) -> float:
        """Lower bound on the seconds that issuing takes; the body of a loop counts once."""
        issued = self.blocks * self.warps * self.code.instructions
        return issued / (MULTIPROCESSORS * ISSUED * CLOCK)


@dataclasses.dataclass(frozen=True)
class Launches:
    """All launches of a program whose code XLA wrote, and how many start one by one.

    outside: launches, library calls and copies that are in no command buffer.
    """

    kernels: tuple[Launch, ...]
    outside: int


def assembler() -> Path | None:
    """NVIDIA's `ptxas`, from its package on the path of Python or of the shell."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        if found := sorted(Path(folder).glob("*/bin/ptxas")):
            return found[-1]
    found = shutil.which("ptxas")
    return Path(found) if found else None


def read(folder: Path, ptxas: Path) -> Launches:
    """Reads what `--xla_dump_to` left of one program in a folder."""
    # A module of constants alone leaves an empty file, which the assembler refuses.
    sources = sorted(path for path in folder.glob("*.ptx") if path.stat().st_size)
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda path: assembled(path, ptxas), sources)
        codes = {name: code for part in parts for name, code in part}
    # "_after_thunk_passes", the later one, is not written where the passes change nothing.
    sequence = max(folder.glob("*.thunk_sequence*.txt"))
    (metadata,) = folder.glob("*.thunk_metadata.txt")
    return launches(sequence.read_text(), metadata.read_text(), codes)


def launches(sequence: str, metadata: str, codes: dict[str, Code]) -> Launches:
    """Joins XLA's list of launches with the names of their instructions and their code."""
    names = {int(number): name for name, number in _NAMED.findall(metadata)}
    found, outside = [], 0
    for line in sequence.splitlines():
        match = _LAUNCH.match(line)
        if match is None:
            continue
        indent, number, kind, kernel, *sizes = match.groups()
        outside += not indent and kind != "kCommandBuffer"
        if kernel in codes and sizes[0]:
            x, y, z, *threads = map(int, sizes)
            name = names.get(int(number), kernel)
            count = threads[0] * threads[1] * threads[2]
            found.append(Launch(name, x * y * z, count, codes[kernel]))
    return Launches(tuple(found), outside)


def assembled(path: Path, ptxas: Path) -> list[tuple[str, Code]]:
    """The kernels of a PTX file with their code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        command = [ptxas, "-v", f"-arch={ARCHITECTURE}", path, "-o", cubin.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        sizes = dict(_code_sizes(Path(cubin.name).read_bytes()))
    loops = _has_loops(path.read_text())
    found = []
    for part in told.split("Compiling entry function '")[1:]:
        name = part[: part.index("'")]
        spilled, registers, shared = (
            int(match[1]) if (match := re.search(pattern, part)) else 0 for pattern in _TOLD
        )
        count = sizes[name] // INSTRUCTION_BYTES
        found.append((name, Code(registers, spilled, shared, count, loops)))
    return found


def _code_sizes(elf: bytes) -> Iterator[tuple[str, int]]:
    """(kernel, bytes of code) of the sections of a 64-bit ELF file."""
    table, size, count, names = struct.unpack_from("<Q10xHHH", elf, 40)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    texts = sections[names][4]
    for offset, _, _, _, _, length in sections:
        name = elf[texts + offset : elf.index(b"\0", texts + offset)].decode()
        if name.startswith(".text."):
            yield name.removeprefix(".text."), length


def _has_loops(source: str) -> bool:
    """Whether a branch goes back to a label above it."""
    labels = set()
    for line in source.splitlines():
        if match := re.match(r"(\$L\w+):", line):
            labels.add(match[1])
        if (match := re.search(r"bra(?:\.uni)?\s+(\$L\w+)", line)) and match[1] in labels:
            return True
    return False
