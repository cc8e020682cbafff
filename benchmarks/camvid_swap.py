"""CamVid trained by either side on either side's batches: whose is a difference?

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/camvid_swap.py --root CAMVID --folder DIR --seed 1
    [--steps 200] [--every 200]

Four trainings from the same initial weights, mmsegmentation's: its model, preprocessor, losses and
PyTorch's SGD, or our step; batches from its data set and pipeline, or from ours. The recipe is
`configs/jpu_psp_camvid.py:cpu` with rates falling from 0.05 to 0.0462 over 200 steps. Every
model is scored by our evaluation, every so many steps.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import camvid_mmseg
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fastfcn_jax import config as configuration  # noqa: E402
from fastfcn_jax import models  # noqa: E402
from fastfcn_jax.conversion import mmseg  # noqa: E402
from fastfcn_jax.data import datasets, pipeline  # noqa: E402
from fastfcn_jax.data.source import Source  # noqa: E402
from fastfcn_jax.evaluation import inference  # noqa: E402
from fastfcn_jax.evaluation.evaluate import evaluate  # noqa: E402
from fastfcn_jax.training import optim, setup, state, strategy  # noqa: E402

Batch = dict[str, np.ndarray]


def their_batches(config: ConfigDict, layout: Path) -> Iterator[Batch]:
    """Batches of mmsegmentation's data set, shuffled anew each epoch, in our form."""
    from mmseg.registry import DATASETS

    transforms = camvid_mmseg.train_pipeline(config.data)
    made = DATASETS.build(camvid_mmseg.dataset(layout, "train", transforms))
    np.random.seed(config.seed)  # noqa: NPY002 (what its transforms draw from)
    order = np.random.default_rng(config.seed)
    waiting: list[int] = []
    size, (height, width) = config.train.batch_size, config.data.crop_size
    while True:
        while len(waiting) < size:
            waiting += order.permutation(len(made)).tolist()
        images = np.zeros((size, height, width, 3), np.uint8)
        labels = np.full((size, height, width), 255, np.uint8)
        sizes = np.zeros((size, 2), np.int32)
        for place in range(size):
            sample = made[waiting.pop(0)]
            label = sample["data_samples"].gt_sem_seg.data[0].numpy()
            h, w = sizes[place] = label.shape
            images[place, :h, :w] = sample["inputs"].numpy().transpose(1, 2, 0)[..., ::-1]
            labels[place, :h, :w] = label
        yield {"image": images, "label": labels, "size": sizes}


def our_batches(config: ConfigDict, source: Source) -> Iterator[Batch]:
    """Batches as `train.py` takes them."""
    for batch in pipeline.build_train(config, source):
        yield {key: np.asarray(batch[key]) for key in ("image", "label", "size")}


def their_model(config: ConfigDict, layout: Path):
    """mmsegmentation's model with its own initial weights of this seed."""
    import torch
    from mmseg.registry import MODELS

    torch.manual_seed(config.seed)
    model = MODELS.build(camvid_mmseg.runner_config(config, layout, layout).model)
    model.init_weights()
    return model


def train_theirs(config: ConfigDict, model, batches: Iterator[Batch]) -> Iterator[dict]:
    """Yields the weights after every step, in our form."""
    import oracle
    import torch

    o = config.optim
    sgd = torch.optim.SGD(model.parameters(), o.lr, o.momentum, weight_decay=o.weight_decay)
    rates = optim.poly_schedule(lr=o.lr, end_lr=o.end_lr, power=o.power, steps=config.train.steps)
    model.train()
    for step, batch in enumerate(batches):
        data: dict[str, list] = {"inputs": [], "data_samples": []}
        for image, label, (h, w) in zip(
            *(batch[k] for k in ("image", "label", "size")), strict=True
        ):
            bgr = np.ascontiguousarray(image[:h, :w, ::-1].transpose(2, 0, 1))
            classes = torch.from_numpy(label[:h, :w].astype(np.int64))
            data["inputs"].append(torch.from_numpy(bgr))
            data["data_samples"].append(oracle.data_sample(classes))
        ready = model.data_preprocessor(data, True)
        loss, _ = model.parse_losses(model(ready["inputs"], ready["data_samples"], mode="loss"))
        for group in sgd.param_groups:
            group["lr"] = float(rates(jnp.int32(step)))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        yield mmseg.to_flax(oracle.tensors_of(model))


def train_ours(config: ConfigDict, model, batches: Iterator[Batch], source) -> Iterator[dict]:
    """Yields the weights after every step; the first ones are those of `model`."""
    import oracle

    plan = strategy.choose("pmap", config.train.batch_size)
    _, _, train_step, _ = setup.build_training(config, source, plan)
    variables = mmseg.to_flax(oracle.tensors_of(model))
    current = plan.put_state(state.create(variables, optim.build(config, variables)))
    for batch in batches:
        current, _ = train_step(current, plan.put_batch(batch))
        yield setup.prediction_variables(current)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of CamVid")
    parser.add_argument("--folder", type=Path, required=True, help="for CamVid in plain folders")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=200, help="steps between two scores")
    arguments = parser.parse_args()
    config = configuration.load(str(ROOT / "configs" / "jpu_psp_camvid.py:cpu"))
    config.data.update(root=arguments.root, threads=1, prefetch=1)
    config.seed, config.train.steps = arguments.seed, 200
    config.optim.update(end_lr=0.0462, power=1.0)
    camvid_mmseg.register()
    if not arguments.folder.is_dir():
        camvid_mmseg.write_layout(Path(arguments.root), arguments.folder)
    train, val = (datasets.load("camvid", arguments.root, split) for split in ("train", "val"))
    for trainer in ("mmseg", "ours"):
        for data in ("mmseg", "ours"):
            batches = (
                their_batches(config, arguments.folder)
                if data == "mmseg"
                else our_batches(config, train)
            )
            start = their_model(config, arguments.folder)
            weights = (
                train_theirs(config, start, batches)
                if trainer == "mmseg"
                else train_ours(config, start, batches, train)
            )
            found = scores(config, weights, val, arguments.steps, arguments.every)
            listed = " ".join(f"{score:.2f}" for score in found)
            print(f"trained by {trainer} on batches of {data}: mIoU {listed}", flush=True)


def scores(config: ConfigDict, weights: Iterator[dict], val, steps: int, every: int):
    """Yields the mIoU after every so many steps."""
    model = models.build(config.model, len(val.info.class_names))
    for step in range(1, steps + 1):
        variables = next(weights)
        if step % every == 0:
            kept = {key: variables[key] for key in ("params", "batch_stats")}
            predictor = inference.build(config, model, kept)
            yield evaluate(predictor, val, progress=False).metrics()["mIoU"]


if __name__ == "__main__":
    main()
