"""SGD as in PyTorch, and the learning rate of each parameter."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

from fastfcn_jax.training import schedules
from fastfcn_jax.training.schedules import Schedule

Path = tuple[str, ...]


class Optimizer(NamedTuple):
    """The parts of the optimiser that the training step applies.

    transform: optax transformation from gradients to directions (no learning rate).
    learning_rate: schedule from the 0-based step.
    multipliers: learning-rate factor of each parameter, a tree of Python floats.
    clip_norm: largest global gradient norm; 0: unlimited.
    frozen: tells whether a path of parameters or statistics is frozen.
    """

    transform: optax.GradientTransformation
    learning_rate: Schedule
    multipliers: Any
    clip_norm: float
    frozen: Callable[[Path], bool]


def sgd(
    variables: dict[str, Any],
    *,
    learning_rate: Schedule,
    momentum: float,
    weight_decay: float,
    head_lr_multiplier: float = 1.0,
    layer_decay: float = 1.0,
    clip_norm: float = 0.0,
    freeze: Sequence[str] = (),
) -> Optimizer:
    """Builds torch.optim.SGD: adds weight decay to every gradient, then applies momentum.

    Args:
      variables: the model's "params" and "batch_stats" (only their paths are used).
      head_lr_multiplier: learning-rate factor of everything outside the backbone.
      layer_decay: learning-rate factor of layer4; its square is that of layer3, and so on.
      freeze: any of "backbone" (its parameters and statistics) and "bn" (parameters and
        statistics of every BatchNorm).
    """
    norms = {path[:-1] for path in _paths(variables["batch_stats"])}

    def frozen(path: Path) -> bool:
        return ("backbone" in freeze and path[0] == "backbone") or (
            "bn" in freeze and path[:-1] in norms
        )

    def multiplier(path: Path) -> float:
        return layer_decay ** _depth(path) * (head_lr_multiplier if path[0] != "backbone" else 1.0)

    def trainable(params):
        return map_paths(lambda path, _: not frozen(path), params)

    # Frozen leaves need no momentum; their gradient, which `step` sets to zero, passes through.
    transform = optax.masked(
        optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum)), trainable
    )
    return Optimizer(
        transform=transform,
        learning_rate=learning_rate,
        multipliers=map_paths(lambda path, _: multiplier(path), variables["params"]),
        clip_norm=clip_norm,
        frozen=frozen,
    )


def build(config, variables: dict[str, Any]) -> Optimizer:
    """Builds the optimiser of an experiment configuration."""
    o = config.optim
    return sgd(
        variables,
        learning_rate=schedules.build(o, config.train.steps),
        momentum=o.momentum,
        weight_decay=o.weight_decay,
        head_lr_multiplier=o.head_lr_multiplier,
        layer_decay=o.layer_decay,
        clip_norm=o.clip_norm,
        freeze=tuple(o.freeze),
    )


def map_paths(function: Callable[[Path, Any], Any], tree):
    """Maps `function(path, leaf)` over nested dicts."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function(tuple(key.key for key in keys), leaf), tree
    )


def _paths(tree) -> list[Path]:
    return [tuple(key.key for key in keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _depth(path: Path) -> int:
    """Number of stages from the heads down to a parameter: 0 neck and heads, 1 layer4, 5 stem."""
    if path[0] != "backbone":
        return 0
    stages = {"layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4}
    return stages.get(path[1].partition("_")[0], 5)
