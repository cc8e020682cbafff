"""Trains a real network in bfloat16 and in float32 and compares the difference with noise.

python benchmarks/bfloat16.py [--config configs/demo.py] [--steps 200] [--json FILE]

All runs see the same batches. Noise is the difference of two other float32 runs from the first: one
with every initial weight changed by one rounding (times 1 + 2^-23), one with other dropout masks.
Printed are the mean loss of each quarter of a run, and the RMS difference of its losses from those
of the first float32 run. Exit status 0: bfloat16 differs by less than the larger noise, and its
parameters, momenta and statistics are float32.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastfcn_jax import runtime  # noqa: E402
from fastfcn_jax.config import experiment  # noqa: E402
from fastfcn_jax.data import datasets, pipeline  # noqa: E402
from fastfcn_jax.training import assembly, strategy  # noqa: E402

PLAN = strategy.Strategy("jit", (jax.devices()[0],))
RUNS = {  # name: (precision, seed of dropout, factor on the initial weights)
    "float32": ("float32", 0, 1.0),
    "one rounding away": ("float32", 0, 1.0 + 2.0**-23),
    "other dropout": ("float32", 1, 1.0),
    "bfloat16": ("bfloat16", 0, 1.0),
}


def losses(config, source, params, precision: str, seed: int, factor: float) -> np.ndarray:
    """The loss of each step, float64; `params` are the initial weights."""
    c = config.copy_and_resolve_references()
    c.seed, c.model.precision = seed, precision
    built = assembly.build(c, source, PLAN)
    scaled = jax.tree.map(lambda p: np.asarray(p) * np.float32(factor), params)
    state = PLAN.put_state(built.state.replace(params=scaled))
    batches = pipeline.build_train(config, source)
    found = []
    for index in range(config.train.steps):
        batch = next(batches)
        del batch["index"]
        placed = PLAN.put_batch(batch)
        state, metrics = built.train_step(state, placed, built.numbers(index))
        found.append(float(metrics["loss"]))
    types = {x.dtype for x in jax.tree.leaves((state.params, state.opt_state, state.batch_stats))}
    if types != {np.dtype("float32")}:
        raise AssertionError(f"the state of the {precision} run is of {types}")
    return np.array(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "configs" / "demo.py"))
    parser.add_argument("--root", default="", help="folder of the data set")
    parser.add_argument("--crop", type=int, nargs=2, default=(64, 96), help="height, width")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runtime.cache_compilations()
    config = experiment.load(arguments.config)
    config.train.steps = arguments.steps
    config.data.update(root=arguments.root, crop_size=tuple(arguments.crop), threads=1)
    source = datasets.load(config.data.name, config.data.root, config.data.train_split)
    params = assembly.build(config, source, PLAN).state.params
    curves, differences = {}, {}
    for name, options in RUNS.items():
        curve = curves[name] = losses(config, source, params, *options)
        differences[name] = float(np.sqrt(np.mean((curve - curves["float32"]) ** 2)))
        quarters = "  ".join(f"{part.mean():.4f}" for part in np.array_split(curve, 4))
        print(f"{name:18s} {quarters}   RMS difference {differences[name]:.4f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({n: c.tolist() for n, c in curves.items()}))
    within = differences["bfloat16"] <= max(
        differences["one rounding away"], differences["other dropout"]
    )
    print("bfloat16 follows float32 within noise" if within else "bfloat16 is NOT within noise")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
