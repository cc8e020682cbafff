"""Exports the published networks at full width in every format and size, each file compared.

python benchmarks/export_matrix.py [--formats stablehlo,onnx,safetensors] [--heads psp,enc,aspp]
    [--sizes 360x480,480x480,512x1024]

FastFCN with ResNet-50, 19 classes, random weights with random BatchNorm statistics. Every file and
its source are run on a drawn street scene, as `fastfcn export` does; what cannot be written is a
line of the table too, and the exit status is 1. The package is the installed one, so a clean
environment shows what an installation lacks:

    pip wheel . --no-deps --wheel-dir dist && python -m venv clean
    clean/bin/pip install "$(ls dist/fastfcn_jax-*.whl)[onnx,safetensors]"
    clean/bin/python benchmarks/export_matrix.py
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import fastfcn_jax
from fastfcn_jax import models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import export
from fastfcn_jax.training import initial_weights


def save(head: str, folder: Path) -> None:
    """A checkpoint folder of `configs/jpu_<head>_cityscapes.py` with random variables."""
    config = experiment.load(f"jpu_{head}_cityscapes")
    info = datasets.info("cityscapes", "")
    variables = initial_weights.random_variables(
        models.build(config.model, info.num_classes), seed=0
    )
    rng = np.random.default_rng(0)

    def statistics(tree):
        for name, value in tree.items():
            if isinstance(value, dict):
                statistics(value)
            else:
                drawn = rng.uniform(0.5, 1.5, value.shape) - (name == "mean")
                tree[name] = drawn.astype(np.float32)

    statistics(variables["batch_stats"])
    model_folder.save_model(folder, variables, model_folder.model_card(config, info, {}))


def row(folder: Path, output: Path, size: tuple[int, int], file_format: str) -> tuple[str, bool]:
    """The end of a line of the table, and whether the file was written."""
    start = time.perf_counter()
    try:
        check = export.export(folder, output, size, file_format).check
    except UserError as error:
        return f"{error} | | | |", False
    except Exception as error:  # what the user would see as a traceback
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]} | | | |", False
    took, mebibytes = time.perf_counter() - start, output.stat().st_size / 2**20
    agreement = f"{check.largest_difference:.1e} ({check.largest_logit:.2g})"
    labels = f"{100 * check.equal_labels:.3f} %"
    return f"{agreement} | {labels} | {mebibytes:.0f} MiB | {took:.0f} s |", True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default="stablehlo,onnx,safetensors")
    parser.add_argument("--heads", default="psp,enc,aspp")
    parser.add_argument("--sizes", default="360x480,480x480,512x1024")
    given = parser.parse_args()
    formats, heads, sizes = (
        words.split(",") for words in (given.formats, given.heads, given.sizes)
    )
    print(f"fastfcn_jax of {Path(fastfcn_jax.__file__).parent.parent.name}, jax {jax.__version__}")
    print("| head | size | format | logits differ by (largest) | labels equal | file | took |")
    print("|---|---|---|---|---|---|---|", flush=True)
    failures = 0
    for head in heads:
        with tempfile.TemporaryDirectory() as folder:
            save(head, Path(folder, "model"))
            for size, file_format in itertools.product(sizes, formats):
                output = Path(folder, f"{size}.{file_format}")
                height, width = map(int, size.split("x"))
                words, written = row(Path(folder, "model"), output, (height, width), file_format)
                print(f"| {head} | {size} | {file_format} | {words}", flush=True)
                failures += not written
                output.unlink(missing_ok=True)
                jax.clear_caches()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
