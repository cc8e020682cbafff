"""Times exported files of every precision against this package's float32, in turns.

python benchmarks/precision_speed.py --checkpoint camvid-small --size 360 480 --photos FOLDER
python benchmarks/precision_speed.py --head psp --size 512 1024 --photos FOLDER [--rounds 15]

--head takes the published network of this head (ResNet-50, full width, 19 classes) with random
weights, which says nothing of labels and the same of time. int8 is calibrated on the first eight
photographs of the folder. Every round runs each program once on one image, so that other load
meets all of them. The table has the median and the fastest round, each also over our own: programs
whose threads wait for each other lose more to other load, and the fastest rounds have least of it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
from export_matrix import save

from fastfcn_jax.data import rasters
from fastfcn_jax.export import export, readers, reduced, writers
from fastfcn_jax.models import folding

FILES = (
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
CALIBRATED = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--head", default="psp")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.checkpoint:
            save(arguments.head, Path(folder) / "model")
        runs = made(
            arguments.checkpoint or Path(folder) / "model",
            Path(folder),
            tuple(arguments.size),
            arguments.photos,
        )
        seconds = timed(runs, arguments.rounds)
    print("| program | precision | median, s | over ours | fastest, s | over ours |")
    print("|---|---|---|---|---|---|")
    own = seconds["ours", "float32"]
    for (program, precision), times in seconds.items():
        cells = [f"{f(times):.4f} | {f(times) / f(own):.2f}" for f in (statistics.median, min)]
        print(f"| {program} | {precision} | {' | '.join(cells)} |")


def made(checkpoint, folder: Path, size: tuple[int, int], photos: Path) -> dict:
    """What runs each file, and our own float32, on one photograph.

    The float32 ONNX file is compared with its source as `fastfcn export` does it; the others are
    written without.
    """
    path = folder / "compared.onnx"
    _, job = export.export(checkpoint, path, size, "onnx")
    said = readers.load(path).metadata
    files = sorted(photo for photo in photos.iterdir() if photo.is_file())[:CALIBRATED]
    exact = readers.load(path)
    images = [exact.input(read(photo, exact.pixel)) for photo in files]
    variables, forward = jax.device_put(folding.fold(job.variables)), jax.jit(job.forward)
    runs: dict = {("ours", "float32"): lambda: jax.block_until_ready(forward(variables, images[0]))}
    for file_format, precision in FILES:
        path = folder / f"{precision}.{'xml' if file_format == 'openvino' else file_format}"
        said.pop("precision", None)
        text = json.dumps({**said, **({"precision": precision} if precision != "float32" else {})})
        if precision == "float32":
            writers.WRITERS[file_format](job, path, text)
        else:
            reduced.MAKERS[file_format, precision](job, text, images)(path, text)
        file = readers.load(path)
        runs[file_format, precision] = lambda file=file: file.run(images[0])
        print(f"{file_format} {precision} written", file=sys.stderr, flush=True)
    return runs


def read(photo: Path, pixel):
    return rasters.image(photo.read_bytes(), str(photo), pixel)


def timed(runs: dict, rounds: int) -> dict:
    """Seconds of every round of each, run in turns; a round before them warms up."""
    seconds: dict = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
