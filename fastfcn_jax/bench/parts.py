"""Time, memory and arithmetic of a training step, part by part, and what limits it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import measured_forms, models, runtime
from fastfcn_jax.bench import measure
from fastfcn_jax.data import datasets, pipeline, pixel_type, sets
from fastfcn_jax.data.augment import steps
from fastfcn_jax.errors import UserError
from fastfcn_jax.models.ops.bilinear import resize
from fastfcn_jax.training import assembly, initial_weights, losses, optim, step


class Network:
    """The model of a configuration, with random weights and a random batch."""

    def __init__(self, config: ConfigDict):
        self.config = config
        d = config.data
        count = config.model.num_classes or datasets.info(d.name, d.root).num_classes
        self.num_classes = max(count, 2)  # one channel is for two classes
        self.model = models.build(config.model, self.num_classes)
        channels, dtype = pixel_type.of(d)
        self.scaling = models.scaling(d)
        self.variables = initial_weights.random_variables(self.model, config.seed, channels)
        shape, rng = (config.train.batch_size, *d.crop_size), np.random.default_rng(0)
        self.batch = {
            "image": jnp.asarray(rng.integers(0, 256, (*shape, channels), "uint8").astype(dtype)),
            "label": jnp.asarray(rng.integers(0, self.num_classes, shape, np.uint8)),
            "size": jnp.tile(jnp.array(shape[1:], jnp.int32), (shape[0], 1)),
            **jax.tree.map(jnp.asarray, steps.device_nothing(d, shape[0])),
        }
        self.align_corners = config.model.lineage == "official"

    def part(self, name: str, call: Callable, *inputs: Any) -> tuple[Callable, tuple, Callable]:
        """Returns a submodule as (forward, arguments, forward and backward)."""
        module = getattr(self.model, name)
        variables = {kind: tree.get(name, {}) for kind, tree in self.variables.items()}

        def forward(params, *inputs, train=False):
            full = {**variables, "params": params}
            if not train:
                return call(lambda *a, **k: module.apply(full, *a, **k), *inputs)

            def apply(*a, **k):
                rngs = {"dropout": jax.random.key(0)}
                k |= {"train": True, "mutable": ["batch_stats"], "rngs": rngs}
                return module.apply(full, *a, **k)[0]

            return call(apply, *inputs)

        def both(params, *inputs):
            result, backward = jax.vjp(lambda p, *i: forward(p, *i, train=True), params, *inputs)
            return backward(jax.tree.map(jnp.ones_like, result))

        return forward, (variables["params"], *inputs), both


def parts(network: Network) -> dict[str, dict[str, measure.Compiled]]:
    """Compiles every part of the step: {part: {"forward": ..., "training": ...}}."""
    model, compiled = network.model, {}

    def add(name, call, *inputs):
        forward, arguments, both = network.part(name, call, *inputs)
        compiled[name] = {
            "forward": measure.Compiled(forward, *arguments),
            "training": measure.Compiled(both, *arguments),
        }
        return compiled[name]["forward"]()

    images = models.normalize(network.batch["image"], None, network.scaling)
    first = 0 if "c2" in model.lateral else 1  # the other models compute c2, but hand it to nobody
    maps = add("backbone", lambda apply, x: apply(x)[first:], images)
    pyramid = maps[-3:]
    features = pyramid[-1]
    if model.neck is not None:
        features = add("neck", lambda apply, *maps: apply(maps), *pyramid)
    fine = model.lateral_of((None,) * first + maps)
    inputs = (features, None, fine) if fine else (features,)
    logits = add("decode_head", lambda apply, *x: apply(*x)[0], *inputs)
    auxiliary = None
    if model.auxiliary_head is not None:
        auxiliary = add("auxiliary_head", lambda apply, x: apply(x)[0], pyramid[1])
    size = network.batch["image"].shape[1:3]

    def classes(logits):
        large = resize(logits, size, align_corners=network.align_corners)
        return large.argmax(-1).astype(jnp.uint8)

    def loss(logits, auxiliary, labels):
        outputs = models.Outputs(logits, auxiliary, None)
        settings = assembly.loss_settings(network.config)
        return losses.total_loss(outputs, labels, network.num_classes, **settings)[0]

    compiled["resize"] = {"forward": measure.Compiled(classes, logits)}
    compiled["loss"] = {
        "training": measure.Compiled(
            jax.value_and_grad(loss, argnums=0 if auxiliary is None else (0, 1)),
            logits,
            auxiliary,
            network.batch["label"],
        )
    }
    compiled["optimiser"] = {"training": _optimiser(network)}
    return compiled


def _optimiser(network: Network) -> measure.Compiled:
    """The update: weight decay, momentum, new weights. The weights stand in for gradients."""
    optimizer = optim.build(network.config, network.variables)
    params = network.variables["params"]

    def update(params, opt_state, grads, rate):
        directions, opt_state = optimizer.transform.update(grads, opt_state, params)
        new = jax.tree.map(
            lambda p, d, m: p - rate * m * d, params, directions, optimizer.multipliers
        )
        return new, opt_state

    rate = optimizer.learning_rate(0)
    return measure.Compiled(update, params, optimizer.transform.init(params), params, rate)


def whole(network: Network) -> dict[str, measure.Compiled]:
    """Compiles the training step as one program, and prediction from pixels to classes."""
    config, model = network.config, network.model
    optimizer = optim.build(config, network.variables)
    # One batch a step, and no weights of classes: they may have to be counted in data.
    train_step = assembly.make_step(config, model, optimizer, network.num_classes)
    state = assembly.initial_state(config, network.variables, optimizer)
    numbers = step.numbers(optimizer, config.seed, 0)
    # A copy, because the step reuses the memory of its state.
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.copy, state))

    def train(leaves, batch, numbers):
        new, metrics = train_step(structure.unflatten(leaves), batch, numbers)
        return jax.tree.leaves(new), metrics

    def predict(variables, images):
        outputs: Any = model.apply(variables, models.normalize(images, None, network.scaling))
        large = resize(outputs.logits, images.shape[1:3], align_corners=network.align_corners)
        return large.argmax(-1).astype(jnp.uint8)

    return {
        "forward": measure.Compiled(predict, network.variables, network.batch["image"]),
        "training": measure.Compiled(train, leaves, network.batch, numbers, donate=True),
    }


def twin(config: ConfigDict) -> ConfigDict | None:
    """The same model with a dilated backbone instead of the JPU; None if it has no JPU."""
    if config.model.neck == "none":
        return None
    other = config.copy_and_resolve_references()
    other.model.update(neck="none", output_stride=8)
    return other


def input_seconds(config: ConfigDict, batches: int = 8) -> float | None:
    """Seconds per batch of the data pipeline alone; None without data at config.data.root."""
    try:
        source = sets.load_training(config.data)
    except UserError:
        return None
    stream = pipeline.build_train(config, source)
    for _ in range(config.data.prefetch + 1):  # the first ones were prepared ahead
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return (time.perf_counter() - start) / batches


def measured(
    config: ConfigDict, *, batch: int = 0, rounds: int = 5, with_twin: bool = True
) -> dict:
    """Measures everything; times are medians, in seconds per batch.

    Args:
      batch: images at a time; 0: `config.train.batch_size`.
      rounds: turns that each part takes.
      with_twin: also time the dilated twin of a model with a JPU.
    """
    runtime.cache_compilations()
    config, choice = measured_forms.resolved(config)
    config.train.batch_size = batch or config.train.batch_size
    network = Network(config)
    compiled = {**parts(network), "whole": whole(network)}
    functions = {
        (name, kind): program
        for name, programs in compiled.items()
        for kind, program in programs.items()
    }
    other = twin(config) if with_twin else None
    if other is not None:
        functions |= {("twin", kind): p for kind, p in whole(Network(other)).items()}
    attained = measure.rates(jnp.dtype(config.model.precision))
    seconds = measure.in_turns(functions, rounds)
    found = {
        "device": jax.devices()[0].device_kind,
        "batch": config.train.batch_size,
        "crop_size": list(config.data.crop_size),
        "flops_per_second": attained.flops,
        "bytes_per_second": attained.bandwidth,
        "forms": choice.note,
        "input_seconds": input_seconds(config),
        "parts": {},
    }
    for (name, kind), program in functions.items():
        time_taken = statistics.median(seconds[name, kind])
        found["parts"].setdefault(name, {})[kind] = {
            "seconds": time_taken,
            "min": min(seconds[name, kind]),
            "max": max(seconds[name, kind]),
            **program.cost._asdict(),
            "roofline": attained.floor(program.cost) / time_taken,
            "bound": attained.bound(program.cost),
        }
    return found


def verdict(found: dict) -> str:
    """One sentence on what limits training."""
    step_seconds, waiting = found["parts"]["whole"]["training"]["seconds"], found["input_seconds"]
    if waiting is not None and waiting > step_seconds:
        return (
            f"The input is the bottleneck: a batch takes {waiting:.3g} s to prepare, a step "
            f"{step_seconds:.3g} s; raise config.data.threads or set config.data.cache."
        )
    candidates = {
        name: kinds["training"]
        for name, kinds in found["parts"].items()
        if name not in ("whole", "twin") and "training" in kinds
    }
    name, row = max(candidates.items(), key=lambda part: part[1]["seconds"])
    share = row["seconds"] / sum(part["seconds"] for part in candidates.values())
    return (
        f"The {name} is the bottleneck: {share:.0%} of the parts' time, bound by {row['bound']}, "
        f"at {row['roofline']:.0%} of what this device attains."
    )


def table(found: dict) -> str:
    """The figures as text; memory is what a program needs besides arguments and results."""
    height, width = found["crop_size"]
    lines = [
        f"{found['device']}: {found['flops_per_second'] / 1e9:.0f} GFLOP/s in matrix products, "
        f"{found['bytes_per_second'] / 1e9:.1f} GB/s; batch {found['batch']} of {height}x{width}",
        found["forms"],
        f"{'part':15} {'kind':9} {'ms':>10} {'GFLOP':>9} {'GB':>8} {'MiB':>8} {'roofline':>8}"
        "  bound by",
    ]
    for name, kinds in found["parts"].items():
        for kind, row in kinds.items():
            lines.append(
                f"{name:15} {kind:9} {1e3 * row['seconds']:10.2f} {row['flops'] / 1e9:9.1f} "
                f"{row['bytes'] / 1e9:8.2f} {row['temporary_bytes'] / 2**20:8.0f} "
                f"{row['roofline']:8.0%}  {row['bound']}"
            )
    if any(row["library_calls"] for kinds in found["parts"].values() for row in kinds.values()):
        lines.append("GB and roofline do not count what libraries (cuDNN, cuBLAS) read and write")
    if found["input_seconds"] is None:
        lines.append("input           not measured: no data at config.data.root")
    else:
        lines.append(f"{'input':15} {'training':9} {1e3 * found['input_seconds']:10.2f}")
    if "twin" in found["parts"]:
        ratios = {
            kind: found["parts"]["twin"][kind]["seconds"] / row["seconds"]
            for kind, row in found["parts"]["whole"].items()
        }
        lines.append(
            f"JPU against its dilated twin: {ratios['forward']:.2f} times as fast forward, "
            f"{ratios['training']:.2f} times in training"
        )
    return "\n".join([*lines, verdict(found)])
