"""Scores of CamVid runs with their own BatchNorm statistics and with recomputed ones.

python benchmarks/camvid_statistics.py --root CAMVID DIR/ours-3 DIR/mmseg-3/iter_200.pth ...

Running statistics reflect the last ten batches or so. Recomputed ones are the mean over 40 training
batches with the final weights, the same batches for every run, so that only the weights differ
between two runs. Runs are folders of `fastfcn train` or files of mmsegmentation.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastfcn_jax import models  # noqa: E402
from fastfcn_jax.checkpoints import model_folder  # noqa: E402
from fastfcn_jax.config import experiment  # noqa: E402
from fastfcn_jax.convert import mmseg_names, pth  # noqa: E402
from fastfcn_jax.data import datasets, pipeline  # noqa: E402
from fastfcn_jax.evaluation.evaluate import evaluate  # noqa: E402
from fastfcn_jax.inference import predictor  # noqa: E402

BATCHES = 40


def load(run: Path) -> dict:
    """The weights and statistics of a run."""
    if run.is_dir():
        variables = model_folder.load_model(run).variables
    else:
        variables = mmseg_names.to_flax(pth.read(run).tensors)
    return {key: variables[key] for key in ("params", "batch_stats")}


def taken_anew(model, variables: dict, batches: list[dict]) -> dict:
    """The variables with statistics averaged over the batches."""

    @jax.jit
    def update(image, size, key):
        images = models.normalize(image, size)
        _, new = model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        old = variables["batch_stats"]  # running = 0.9 running + 0.1 batch
        return jax.tree.map(lambda n, o: (n - 0.9 * o) / 0.1, new["batch_stats"], old)

    found = [update(b["image"], b["size"], jax.random.key(i)) for i, b in enumerate(batches)]
    mean = jax.tree.map(lambda *x: np.mean(x, axis=0, dtype=np.float32), *found)
    return {**variables, "batch_stats": mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--root", required=True)
    parser.add_argument("--config", default=str(ROOT / "configs" / "jpu_psp_camvid.py:cpu"))
    arguments = parser.parse_args()
    config = experiment.load(arguments.config)
    config.data.root, config.seed = arguments.root, 123  # batches that no run was trained on last
    train, val = (datasets.load("camvid", arguments.root, split) for split in ("train", "val"))
    made = pipeline.build_train(config, train)
    batches = [next(made) for _ in range(BATCHES)]
    model = models.build(config.model, len(train.info.class_names))
    for run in arguments.runs:
        variables = load(run)
        row = []
        for tried in (variables, taken_anew(model, variables, batches)):
            scores = evaluate(predictor.build(config, model, tried), val, progress=False).metrics()
            row.append(f"mIoU {scores['mIoU']:.2f} aAcc {scores['aAcc']:.2f}")
        print(f"{run}: its own {row[0]}; recomputed {row[1]}", flush=True)


if __name__ == "__main__":
    main()
