"""Feeds damaged weight files to the reader: each must quickly give tensors or one clear error.

    python -m benchmarks.fuzz_pth --files 10000

It starts from files that PyTorch writes (both containers, several kinds of training file), flips
bytes, overwrites fields with extreme numbers, cuts, repeats and splices pieces, and swaps pickle
opcodes. It fails at the first file that raises anything but `UserError`, takes longer than a
second, or manages to execute code, which the pickles try to do.
"""

import builtins
import collections
import io
import pickle
import resource
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from fastfcn_jax.convert import pth
from fastfcn_jax.errors import UserError

_FILES = flags.DEFINE_integer("files", 10_000, "how many mutated files to read")
_SEED = flags.DEFINE_integer("seed", 0, "of the mutations")

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class _Canary:
    """Pickles as a call of `builtins.exec` that would set a marker in `builtins`."""

    def __reduce__(self):
        return exec, ("import builtins; builtins.pth_was_executed = True",)


def seed_files() -> dict[str, bytes]:
    """Small files written by PyTorch: both containers; plain, training and hostile content."""
    import torch

    weights = collections.OrderedDict(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).state_dict())
    weights["half"] = torch.arange(6).half()
    weights["brain"] = torch.arange(6).bfloat16().reshape(2, 3).T
    contents = {
        "plain": weights,
        "training": {"state_dict": weights, "best_pred": np.float64(0.5), "epoch": 3},
        "hostile": {"state_dict": weights, "meta": _Canary()},
    }
    files = {}
    for name, content in contents.items():
        # Without checksums, damage is not already noticed by the container.
        for container in ("zip", "zip without checksums", "legacy stream"):
            torch.serialization.set_crc32_options(container == "zip")
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=container.startswith("zip"))
            files[f"{name}, {container}"] = buffer.getvalue()
    torch.serialization.set_crc32_options(True)
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages a file in one to four random ways."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(changed)))
        match rng.integers(6):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at] = rng.choice(list(b"0123456789" + b"".join(_opcodes())))
            case 2:
                width = int(rng.choice([1, 2, 4, 8]))
                number = int(rng.choice(np.array(EXTREMES, np.uint64)))
                piece = struct.pack("<Q", number)[:width]
                changed[at : at + width] = piece
            case 3:
                del changed[at : at + int(rng.integers(1, 65))]
            case 4:
                piece = changed[at : at + int(rng.integers(1, 65))]
                to = int(rng.integers(len(changed)))
                changed[to:to] = piece
            case 5 if rng.random() < 0.2:
                del changed[max(at, 1) :]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def _opcodes() -> list[bytes]:
    return [getattr(pickle, name) for name in pickle.__all__ if _is_opcode(name)]


def _is_opcode(name: str) -> bool:
    value = getattr(pickle, name)
    return name.isupper() and isinstance(value, bytes) and len(value) == 1


def fuzz(count: int, seed: int) -> dict[str, int]:
    """Reads `count` mutated files; returns how many gave tensors and how many an error.

    Raises:
      AssertionError: a file executed something or broke the reader.
    """
    rng = np.random.default_rng(seed)
    seeds = list(seed_files().items())
    outcomes = {"read": 0, "refused": 0, "slowest_ms": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutated.pth")
        for index in range(count):
            name, original = seeds[index % len(seeds)]
            path.write_bytes(mutate(original, rng))
            start = time.process_time()
            try:
                pth.read(path)
                outcomes["read"] += 1
            except UserError:
                outcomes["refused"] += 1
            except BaseException as error:
                kept = Path(tempfile.gettempdir(), f"fuzz_pth_{seed}_{index}.pth")
                kept.write_bytes(path.read_bytes())
                raise AssertionError(f"{name}, file {index}, kept as {kept}: {error!r}") from error
            took = time.process_time() - start
            assert not hasattr(builtins, "pth_was_executed"), f"{name}, file {index} ran its code"
            outcomes["slowest_ms"] = max(outcomes["slowest_ms"], round(took * 1000))
    return outcomes


def main(_):
    outcomes = fuzz(_FILES.value, _SEED.value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{outcomes['read']} read, {outcomes['refused']} refused with one sentence, none ran.")
    print(f"slowest {outcomes['slowest_ms']} ms; peak memory of the process {peak} MiB")
    if outcomes["slowest_ms"] > 1000:
        raise SystemExit("one file took longer than a second")


if __name__ == "__main__":
    app.run(main)
