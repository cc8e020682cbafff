"""Reads a compiled GPU program: its kernels, bytes moved, arithmetic and collectives.

The input is the text of `compiled.as_text()`. Every instruction of the schedule, except bookkeeping
such as tuples, counts as one kernel that reads its operands and writes its results once.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "token": 0}
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
FREE |= {"partition-id", "replica-id", "opt-barrier"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
SLICING = {"slice", "dynamic-slice", "gather"}

_SHAPE = re.compile(r"([a-z]+\d*[a-z]*\d*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation. shapes: (type, dimensions) of each result."""

    name: str
    opcode: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def result_bytes(self) -> int:
        return sum(map(shape_bytes, self.shapes))

    def attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch of a kernel. kind: conv, dot, fusion, collective or other."""

    name: str
    kind: str
    bytes: int
    flops: int
    float32: bool = False
    source: str = ""

    def seconds(self, machine: "Machine") -> float:
        """Lower bound on its seconds: the larger of those for arithmetic and for memory traffic."""
        rate = machine.float32_flops if self.float32 else machine.flops
        return max(self.flops / rate, self.bytes / machine.bandwidth)


@dataclasses.dataclass(frozen=True)
class Machine:
    """Attainable rates per second: matrix arithmetic in bf16 and float32 (TF32), memory traffic."""

    flops: float
    float32_flops: float
    bandwidth: float


class Program:
    """The computations of a program by name; `entry` is the schedule."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self.computations.setdefault(head.group(1), {})
                if line.startswith("ENTRY"):
                    self.entry = head.group(1)
            elif found := _LINE.match(line):
                instruction = _parse(*found.groups())
                current[instruction.name] = instruction

    def kernels(self, computation: str | None = None) -> Iterator[Kernel]:
        """Yields every launch in the order of the schedule; a loop's body as often as it runs."""
        table = self.computations[computation or self.entry]
        for instruction in table.values():
            yield from self._kernels_of(instruction, table)

    def _kernels_of(self, instruction, table) -> Iterator[Kernel]:
        opcode = instruction.opcode
        if opcode in FREE or opcode.endswith("-done"):
            return
        if opcode == "while":
            body = instruction.attribute(r"body=%?([\w.\-]+)")
            trips = instruction.attribute(r'known_trip_count":\{"n":"(\d+)"') or 1
            for _ in range(int(trips)):
                yield from self.kernels(body)
        elif opcode in ("call", "async-start"):
            inner = instruction.attribute(r"(?:to_apply|calls)=%?([\w.\-]+)")
            yield from self.kernels(inner)
        elif opcode == "conditional":
            inner = instruction.attribute(r"branch_computations=\{%?([\w.\-]+)")
            yield from self.kernels(
                inner or instruction.attribute(r"true_computation=%?([\w.\-]+)")
            )
        else:
            yield self._kernel(instruction, table)

    def _kernel(self, instruction, table) -> Kernel:
        source = instruction.attribute(r'op_name="([^"]*)"') or ""
        if is_collective(instruction):
            kind, moved, flops = "collective", payload(instruction, table), 0
        elif instruction.opcode == "fusion":
            fused = self.computations[instruction.attribute(r"calls=%?([\w.\-]+)")]
            flops = sum(_arithmetic(inner, fused) for inner in fused.values())
            kind = "dot" if flops else "fusion"
            moved = _fusion_bytes(instruction, table, fused)
        else:
            flops = _arithmetic(instruction, table)
            target = instruction.attribute(r'custom_call_target="([^"]*)"') or ""
            kind = "other"
            if flops:
                kind = "conv" if "conv" in target or instruction.opcode == "convolution" else "dot"
            moved = _operand_bytes(instruction, table) + _useful_result_bytes(instruction)
        types = {shape[0] for name in instruction.operands for shape in table[name].shapes}
        return Kernel(instruction.name, kind, moved, flops, types == {"f32"}, source)

    def transfers(self, machine: Machine) -> list["Transfer"]:
        """The collectives, in the order in which they end."""
        table = self.computations[self.entry]
        clock = 0.0
        running: dict[str, Transfer] = {}
        finished = []
        for instruction in table.values():
            if is_collective(instruction):
                transfer = Transfer(payload(instruction, table), clock, clock)
                if instruction.opcode.endswith("-start"):
                    running[instruction.name] = transfer
                else:
                    finished.append(transfer)
            elif instruction.opcode.endswith("-done"):
                if instruction.operands[0] in running:
                    transfer = running.pop(instruction.operands[0])
                    finished.append(dataclasses.replace(transfer, end=clock))
            else:
                clock += sum(k.seconds(machine) for k in self._kernels_of(instruction, table))
        return finished


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A collective; seconds of other kernels before it may start, and before it must end."""

    bytes: int
    start: float
    end: float

    @property
    def hidden(self) -> float:
        return self.end - self.start


def shape_bytes(shape: tuple[str, tuple[int, ...]]) -> int:
    return BYTES.get(shape[0], 4) * math.prod(shape[1])


def is_collective(instruction: Instruction) -> bool:
    return instruction.opcode.removesuffix("-start") in COLLECTIVES


def payload(instruction: Instruction, table: dict[str, Instruction]) -> int:
    """Bytes of a collective's input on each device."""
    return _operand_bytes(instruction, table)


def _parse(root: str | None, name: str, rest: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shapes = tuple(
        (kind, tuple(int(n) for n in dims.split(",") if n))
        for kind, dims in _SHAPE.findall(rest[:end])
    )
    rest = rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing]
    opcode = rest[:opening]
    operands = () if opcode in ("constant", "parameter") else re.findall(r"%([\w.\-]+)", inside)
    return Instruction(name, opcode, shapes, tuple(operands), rest[closing + 1 :], bool(root))


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


def _operand_bytes(instruction, table) -> int:
    return sum(table[name].result_bytes for name in set(instruction.operands))


def _useful_result_bytes(instruction) -> int:
    """The results without a library's scratch space, the last element of its tuple."""
    if instruction.opcode == "custom-call" and len(instruction.shapes) > 1:
        return sum(map(shape_bytes, instruction.shapes[:-1]))
    return instruction.result_bytes


def _fusion_bytes(instruction, table, fused) -> int:
    """Bytes of a fusion; operands that it only slices or updates in place count as the slices."""
    total = 0
    parameters = [i for i in fused.values() if i.opcode == "parameter"]
    in_place = set()
    for inner in fused.values():
        if inner.opcode == "dynamic-update-slice":
            in_place.add(_origin(inner.operands[0], fused))
            written = fused[inner.operands[1]].result_bytes
            total += written - inner.result_bytes  # the whole result is added below
    users: dict[str, list[Instruction]] = {name: [] for name in fused}
    for inner in fused.values():
        for name in set(inner.operands):
            users[name].append(inner)
    known: dict[str, float] = {}
    for parameter in parameters:
        if parameter.name in in_place and len(users[parameter.name]) == 1:
            continue
        total += math.ceil(parameter.result_bytes * _share_read(parameter, users, known))
    return total + instruction.result_bytes


def _share_read(instruction, users, known) -> float:
    """The share of a value that its users read: all of it, unless all of them slice it.

    known: shares found so far, by name, as many paths lead to the same value.
    """
    if instruction.name not in known:
        known[instruction.name] = _share_of_users(instruction, users, known)
    return known[instruction.name]


def _share_of_users(instruction, users, known) -> float:
    size = math.prod(instruction.shapes[0][1]) if instruction.shapes else 1
    if instruction.root or not users[instruction.name] or not size:
        return 1.0
    share = 0.0
    for user in users[instruction.name]:
        user_size = math.prod(user.shapes[0][1])
        if user.opcode in SLICING:
            share += user_size / size
        elif user_size == size and user.opcode not in ("reduce", "dot", "convolution"):
            share += _share_read(user, users, known)
        else:
            return 1.0
    return min(share, 1.0)


def _origin(name, fused) -> str:
    while fused[name].opcode in ("bitcast", "copy"):
        name = fused[name].operands[0]
    return name


def _arithmetic(instruction, table) -> int:
    """Floating-point operations of a convolution or matrix product, in a library call or not."""
    target = instruction.attribute(r'custom_call_target="([^"]*)"') or ""
    if instruction.opcode == "convolution" or "$conv" in target:
        return _convolution_flops(instruction, table, target)
    if instruction.opcode == "dot" or target.startswith(("__cublas$", "__triton_gemm")):
        lhs = table[instruction.operands[0]].shapes[0][1]
        listed = instruction.attribute(r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([^\]}]*)[\]}]')
        contracted = [int(n) for n in re.findall(r"\d+", listed or "")]
        depth = math.prod(lhs[i] for i in contracted)
        return 2 * math.prod(instruction.shapes[0][1]) * depth
    return 0


def _convolution_flops(instruction, table, target) -> int:
    first, second = (table[name].shapes[0][1] for name in instruction.operands[:2])
    result = instruction.shapes[0][1]
    if "BackwardInput" in target:
        output, kernel = first, second
    elif "BackwardFilter" in target:
        output, kernel = second, result
    else:
        output, kernel = result, second
    labels = instruction.attribute(r"dim_labels=\w+_(\w+)->")
    per_output = math.prod(n for n, label in zip(kernel, labels, strict=True) if label != "o")
    return 2 * math.prod(output) * per_output
