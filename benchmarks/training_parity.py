"""Trains mmsegmentation and this package on the same batches and compares them step by step.

python benchmarks/training_parity.py [--head psp enc aspp] [--steps 50] [--json FILE]
python benchmarks/training_parity.py --precision float64 --steps 1 --size 97 131

Both sides start from the same weights, those of mmseg's own initialisation, and see the same
images; dropout is 0. mmseg's side is its own model (`fastfcn_r50-d32_jpu_*`), `loss`, OptimWrapper
with torch.optim.SGD, and PolyLR. Printed for each head: the relative difference of each part of the
loss over the steps; the same between mmseg and a "twin", mmseg with its initial weights changed by
one rounding; and, after the last step, the relative differences of parameters, of their change
since the start, of momenta and of statistics, as norms over all arrays.

In float32, rounding can move an activation across a ReLU's zero. That changes gradients by far more
than rounding and hides whether both sides are the same function; in float64 it does not.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

NAMES = {  # ours -> mmseg's
    "loss_decode": "decode.loss_ce",
    "loss_se": "decode.loss_se",
    "loss_auxiliary": "aux.loss_ce",
    "accuracy": "decode.acc_seg",
}
CLASSES = 19


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The recipe of both sides; size is (height, width), precision float32 or float64."""

    head: str
    depth: int = 50
    steps: int = 50
    size: tuple[int, int] = (97, 131)
    batch: int = 4
    lr: float = 0.01
    precision: str = "float32"


def build_reference(recipe: Recipe):
    """mmseg's model with its own initialisation, its optimiser wrapper and its scheduler."""
    import oracle
    import torch
    from mmengine.logging import MMLogger
    from mmengine.optim import OptimWrapper, PolyLR

    oracle.import_mmseg()
    config = oracle.mmseg_config(
        f"fastfcn/fastfcn_r50-d32_jpu_{recipe.head}_4xb2-80k_cityscapes-512x1024"
    )
    decode, auxiliary = config.model.decode_head, config.model.auxiliary_head
    for part in (decode, auxiliary):
        part.dropout_ratio = 0.0
    torch.manual_seed(0)  # the constructor draws the codewords, init_weights everything else
    model = oracle.build_mmseg(config, backbone={"depth": recipe.depth}).train()
    MMLogger.get_current_instance().setLevel("ERROR")
    model.init_weights()
    model.to(getattr(torch, recipe.precision))
    sgd = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=5e-4)
    wrapper = OptimWrapper(optimizer=sgd)
    scheduler = PolyLR(
        sgd, eta_min=recipe.lr / 100, power=0.9, begin=0, end=recipe.steps, by_epoch=False
    )
    return model, wrapper, scheduler


def nudge(model) -> None:
    """Changes every weight by one rounding, up or down, except zeros.

    A residual branch starts with a scale of 0, so its ReLU gets exact zeros. Changing the scale
    would move them to either side, which is more than rounding.
    """
    import torch

    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            aim = torch.full_like(parameter, torch.inf if i % 2 else -torch.inf)
            nudged = torch.nextafter(parameter, aim)
            parameter.copy_(torch.where(parameter == 0, parameter, nudged))


def train_reference(model, wrapper, scheduler, batches) -> list[dict[str, float]]:
    """mmseg's own step: loss, parse_losses, OptimWrapper.update_params, scheduler."""
    import jax
    import oracle
    import torch

    from fastfcn_jax.models.segmentor import MEAN, STD, normalize

    history = []
    dtype = next(model.parameters()).dtype
    for batch in batches:
        scaled = (batch["image"].astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
        if dtype == torch.float64:  # exactly our input: it differs by a float32 rounding
            scaled = np.array(jax.jit(normalize)(batch["image"]))
        samples = [oracle.data_sample(torch.from_numpy(x).long()) for x in batch["label"]]
        parts = model.loss(oracle.to_torch(scaled).to(dtype), samples)
        total, logs = model.parse_losses(parts)
        wrapper.update_params(total)
        scheduler.step()
        values = {
            name: float(logs[theirs].detach()) for name, theirs in NAMES.items() if theirs in logs
        }
        history.append({"loss": float(total.detach()), **values})
    return history


def train_ours(tensors, recipe: Recipe, batches):
    """Returns the metrics of each step and the final state."""
    import jax

    if recipe.precision == "float64":
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            return _train_ours(tensors, recipe, batches)
    return _train_ours(tensors, recipe, batches)


def _train_ours(tensors, recipe, batches):
    import jax

    from fastfcn_jax import models
    from fastfcn_jax.config.base import get_config
    from fastfcn_jax.convert import mmseg_names
    from fastfcn_jax.training import optim, state, step

    c = get_config()
    c.model.update(backbone=f"resnet{recipe.depth}", head=recipe.head, dropout=0.0)
    c.model.update(se_branch=recipe.head == "enc", precision=recipe.precision)
    c.optim.update(lr=recipe.lr, end_lr=recipe.lr / 100)
    c.train.steps = recipe.steps
    model = models.build(c.model, CLASSES)
    variables = mmseg_names.to_flax(tensors, recipe.precision)
    optimizer = optim.build(c, variables)
    run = jax.jit(
        step.make_train_step(model, optimizer, num_classes=CLASSES, loss={}),
        donate_argnums=0,
    )
    now = jax.device_put(state.create(variables, optimizer))
    history = []
    for index, batch in enumerate(batches):
        now, metrics = run(now, batch, step.numbers(optimizer, 0, index))
        history.append({name: float(value) for name, value in metrics.items()})
    return history, jax.tree.map(np.asarray, now)


def make_batches(recipe: Recipe) -> list[dict[str, np.ndarray]]:
    """Images of coloured rectangles, labelled with their classes; a part is ignored."""
    size, batch = recipe.size, recipe.batch
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (CLASSES, 3))
    made = []
    for _ in range(recipe.steps):
        labels = np.zeros((batch, *size), np.uint8)
        for label in labels:
            for _ in range(12):
                top, left = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
                height, width = rng.integers(8, np.array(size) // 2)
                label[top : top + height, left : left + width] = rng.integers(CLASSES)
        noise = rng.normal(0, 20, (*labels.shape, 3))
        images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
        labels[:, : size[0] // 6] = 255
        extent = np.tile(np.array(size, np.int32), (batch, 1))
        made.append({"image": images, "label": labels, "size": extent})
    return made


def arrays_of(model, wrapper) -> dict[str, dict[str, np.ndarray]]:
    """Parameters, momenta and statistics of mmseg's side, under our names."""
    import oracle

    from fastfcn_jax.convert import mmseg_names

    slots = wrapper.optimizer.state
    momenta = {n: slots[p]["momentum_buffer"].numpy() for n, p in model.named_parameters()}
    precision = str(next(iter(momenta.values())).dtype)
    variables = mmseg_names.to_flax(oracle.tensors_of(model), precision)
    return {
        "parameters": variables["params"],
        "momenta": mmseg_names.to_flax(momenta, precision)["params"],
        "statistics": variables["batch_stats"],
    }


def arrays_of_state(state) -> dict[str, dict[str, np.ndarray]]:
    """Parameters, momenta and statistics of our side."""
    import optax

    return {
        "parameters": state.params,
        "momenta": optax.tree_utils.tree_get(state.opt_state, "trace"),
        "statistics": state.batch_stats,
    }


def with_change(arrays, first):
    """The arrays of a side and the change of its parameters since `first`, in float64."""
    import jax

    def change(now, then):
        return now.astype(np.float64) - then

    return {**arrays, "change": jax.tree.map(change, arrays["parameters"], first)}


def differences(left, right) -> dict[str, float]:
    """For each group of arrays, the norm of the difference divided by the norm of `right`."""
    import jax

    def norm(tree):
        return (
            sum(float(np.square(x, dtype=np.float64).sum()) for x in jax.tree.leaves(tree)) ** 0.5
        )

    return {
        group: norm(jax.tree.map(np.subtract, left[group], right[group])) / norm(right[group])
        for group in right
    }


def relative(left, right) -> dict[str, list[float]]:
    """For each part of the loss, the relative difference of two histories at each step."""
    return {
        name: [
            abs(a[name] - b[name]) / max(abs(b[name]), 1e-12)
            for a, b in zip(left, right, strict=True)
        ]
        for name in right[0]
    }


def compare(recipe: Recipe, *, with_twin: bool = True) -> dict:
    """Trains both sides of a recipe and mmseg's twin; returns the differences listed above."""
    import oracle

    from fastfcn_jax.convert import mmseg_names

    batches = make_batches(recipe)
    reference = build_reference(recipe)
    start = {k: v.copy() for k, v in oracle.tensors_of(reference[0]).items()}
    theirs = train_reference(*reference, batches)
    ours, final = train_ours(start, recipe, batches)
    first = mmseg_names.to_flax(start, recipe.precision)["params"]
    expected = with_change(arrays_of(*reference[:2]), first)
    result = {
        "recipe": dataclasses.asdict(recipe),
        "losses": [values["loss"] for values in theirs],
        "ours": relative(ours, theirs),
        "after": differences(with_change(arrays_of_state(final), first), expected),
    }
    if with_twin:
        twin = build_reference(recipe)
        nudge(twin[0])
        result["twin"] = relative(train_reference(*twin, batches), theirs)
        result["after_twin"] = differences(with_change(arrays_of(*twin[:2]), first), expected)
    return result


def report(result: dict) -> None:
    steps = len(result["losses"])
    print(f"\n{result['recipe']}: loss {result['losses'][0]:.4f} -> {result['losses'][-1]:.4f}")
    marks = [i for i in (0, 1, 2, 4, 9, 19, 29, 39, 49) if i < steps]
    print("step".ljust(24) + "".join(f"{i + 1:>10d}" for i in marks))
    for name in result["ours"]:
        for side in ("ours", "twin"):
            row = "".join(f"{result[side][name][i]:10.1e}" for i in marks)
            print(f"{name} {side}".ljust(24) + row)
    print("after the last step".ljust(24) + "      ours      twin")
    for group, error in result["after"].items():
        print(group.ljust(24) + f"{error:10.1e}{result['after_twin'][group]:10.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head", nargs="+", default=["psp", "aspp", "enc"])
    parser.add_argument("--depth", type=int, default=50, choices=(50, 101))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, nargs=2, default=(97, 131))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", default="float32", choices=("float32", "float64"))
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    options = {k: v for k, v in vars(arguments).items() if k not in ("head", "json")}
    options["size"] = tuple(options["size"])
    for head in arguments.head:
        results.append(compare(Recipe(head, **options)))
        report(results[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
