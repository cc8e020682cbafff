"""Feeds mutated exported files to the reader: each gives labels or one clear error.

    python benchmarks/fuzz_export.py --files 300

Starts from a narrow model in StableHLO, ONNX and safetensors and damages the files, as
`fuzz_pth.py` does; half of the mutated archives get new checksums, as an attacker would give them.
The files are read in a process of its own that is started again where one of the libraries takes it
down; such deaths are counted, as are files that take minutes.
"""

import argparse
import collections
import io
import itertools
import multiprocessing
import resource
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import small

from benchmarks.fuzz_pth import mutate
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import export, readers

SIZE = (64, 64)
FORMATS = ("stablehlo", "onnx", "safetensors")
SECONDS = 120  # for one file, and for the start of a process before it


def originals(folder: Path) -> dict[str, bytes]:
    """The narrow model in every format."""
    config = small.config("psp", "jpu", auxiliary=False)
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    model_folder.save_model(folder / "model", small.variables(config.model, 19), card)
    found = {}
    for file_format in FORMATS:
        path = folder / f"m.{file_format}"
        export.export(folder / "model", path, SIZE, file_format)
        found[file_format] = path.read_bytes()
    return found


def mutate_part(data: bytes, rng: np.random.Generator) -> bytes:
    """An archive with one damaged part, whose checksum is right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(["program.npy", "metadata.npy", *parts]))
    parts[name] = mutate(parts[name], rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return made.getvalue()


def damaged(file_format: str, data: bytes, index: int, rng: np.random.Generator) -> bytes:
    if file_format == "stablehlo" and index % 2:
        return mutate_part(data, rng)
    if index % 2:  # the beginning holds the structure, the rest is weights
        return mutate(data[:4096], rng) + data[4096:]
    return mutate(data, rng)


def read_files(connection) -> None:
    """Answers each path with what became of the file, and the memory at its peak so far."""
    while (path := connection.recv()) is not None:
        try:
            labels = readers.load(path)(np.zeros((*SIZE, 3), np.uint8))
            answer = "read" if labels.shape == SIZE else f"labels of shape {labels.shape}"
        except UserError as error:
            answer = "refused" if str(error).isprintable() else f"unprintable: {error!r}"
        except BaseException as error:
            answer = f"{type(error).__name__} escaped: {error}"
        connection.send((answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))


class Reader:
    """A process that reads files; a new one where it died or took too long."""

    def __init__(self):
        self._spawn = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._connection, other = self._spawn.Pipe()
        self._process = self._spawn.Process(target=read_files, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def read(self, path: Path) -> tuple[str, int]:
        try:
            self._connection.send(str(path))
            if self._connection.poll(SECONDS):
                return self._connection.recv()
            answer = "took too long"
        except (EOFError, ConnectionError):
            self._process.join()
            answer = f"took the process down ({self._process.exitcode})"
        self._process.kill()
        self._start()
        return answer, 0

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    tally, peak, reader = collections.Counter(), 0, Reader()
    with tempfile.TemporaryDirectory() as folder:
        cycle = itertools.cycle(originals(Path(folder)).items())
        for index, (file_format, data) in enumerate(itertools.islice(cycle, given.files)):
            path = Path(folder, f"mutated.{file_format}")
            path.write_bytes(damaged(file_format, data, index // len(FORMATS), rng))
            answer, mib = reader.read(path)
            tally[file_format, answer] += 1
            peak = max(peak, mib)
            if answer not in ("read", "refused"):
                kept = Path(tempfile.gettempdir(), f"fuzz_export_{given.seed}_{index}{path.suffix}")
                kept.write_bytes(path.read_bytes())
                print(f"{kept}: {answer}", flush=True)
    reader.close()
    for (file_format, answer), count in sorted(tally.items()):
        print(f"{file_format}: {count} {answer}")
    print(f"peak memory of a reading process {peak} MiB")
    return 1 if {answer for _, answer in tally} - {"read", "refused"} else 0


if __name__ == "__main__":
    sys.exit(main())
