"""SGD as in PyTorch, AdamW and LAMB; learning rate and weight decay of each parameter."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

from fastfcn_jax.training import param_groups, schedules
from fastfcn_jax.training.schedules import Schedule

Path = param_groups.Path


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


def build(config, variables: dict[str, Any]) -> Optimizer:
    """Builds the optimiser of an experiment configuration.

    Raises:
      UserError: an entry of `optim.groups` is misspelt or matches no parameter.
    """
    o = config.optim
    common = {
        "learning_rate": schedules.build(o, config.train.steps),
        "weight_decay": o.weight_decay,
        "decay_norms": o.decay_norms,
        "head_lr_multiplier": o.head_lr_multiplier,
        "layer_decay": o.layer_decay,
        "clip_norm": o.clip_norm,
        "freeze": tuple(o.freeze),
        "groups": param_groups.parse(o.groups),
    }
    if o.name == "adamw":
        return adamw(variables, betas=tuple(o.betas), eps=o.eps, **common)
    if o.name == "lamb":
        return lamb(variables, betas=tuple(o.betas), eps=o.eps, **common)
    return sgd(variables, momentum=o.momentum, nesterov=o.nesterov, **common)


def sgd(
    variables: dict[str, Any], *, momentum: float, nesterov: bool = False, **common
) -> Optimizer:
    """torch.optim.SGD: adds weight decay to every gradient, then applies momentum.

    The arguments are those of `assemble`.
    """
    trace = optax.trace(momentum, nesterov=nesterov)
    return assemble(variables, lambda decay: optax.chain(decay, trace), **common)


def adamw(
    variables: dict[str, Any], *, betas: tuple[float, float], eps: float, **common
) -> Optimizer:
    """torch.optim.AdamW: the decay is added to Adam's direction, so it is scaled by the rate alone.

    The arguments are those of `assemble`.
    """
    adam = _adam(betas, eps)
    return assemble(variables, lambda decay: optax.chain(adam, decay), **common)


def lamb(
    variables: dict[str, Any], *, betas: tuple[float, float], eps: float, **common
) -> Optimizer:
    """LAMB: AdamW's direction of each array, scaled to the norm of the array.

    You et al., https://arxiv.org/abs/1904.00962. The arguments are those of `assemble`.
    """
    adam, trust = _adam(betas, eps), optax.scale_by_trust_ratio()
    return assemble(variables, lambda decay: optax.chain(adam, decay, trust), **common)


def assemble(
    variables: dict[str, Any],
    direction: Callable[[optax.GradientTransformation], optax.GradientTransformation],
    *,
    learning_rate: Schedule,
    weight_decay: float,
    decay_norms: bool = True,
    head_lr_multiplier: float = 1.0,
    layer_decay: float = 1.0,
    clip_norm: float = 0.0,
    freeze: Sequence[str] = (),
    groups: Sequence[param_groups.Group] = (),
) -> Optimizer:
    """An optimiser with the learning rate, the decay and the freezing of every parameter.

    Args:
      variables: the model's "params" and "batch_stats" (only their paths are used).
      direction: the transformation of trainable gradients, given the one that adds weight decay.
      decay_norms: also decay the parameters of normalisations and all biases.
      head_lr_multiplier: learning-rate factor of everything outside the backbone.
      layer_decay: learning-rate factor of layer4; its square is that of layer3, and so on.
      freeze: any of "backbone" (its parameters and statistics) and "bn" (parameters and
        statistics of every BatchNorm).
      groups: further factors of the learning rate and the decay, by name.

    Raises:
      UserError: a group matches no parameter.
    """
    norms = {path[:-1] for path in _paths(variables["batch_stats"])}
    paths = _paths(variables["params"])
    param_groups.refuse_unmatched(groups, paths)

    def frozen(path: Path) -> bool:
        return ("backbone" in freeze and path[0] == "backbone") or (
            "bn" in freeze and path[:-1] in norms
        )

    def multiplier(path: Path) -> float:
        outside = head_lr_multiplier if path[0] != "backbone" else 1.0
        return layer_decay ** _depth(path) * outside * param_groups.of(groups, path).lr

    def decay(path: Path) -> float:
        kept = decay_norms or not _is_norm_or_bias(path, known)
        return weight_decay * param_groups.of(groups, path).decay if kept else 0.0

    def trainable(params):
        return map_paths(lambda path, _: not frozen(path), params)

    known = set(paths)
    # Frozen leaves need no momentum; their gradient, which `step` sets to zero, passes through.
    transform = optax.masked(direction(_decayed({path: decay(path) for path in paths})), trainable)
    return Optimizer(
        transform=transform,
        learning_rate=learning_rate,
        multipliers=map_paths(lambda path, _: multiplier(path), variables["params"]),
        clip_norm=clip_norm,
        frozen=frozen,
    )


def _adam(betas: tuple[float, float], eps: float) -> optax.GradientTransformation:
    """optax.scale_by_adam; it raises floats to integers, which strict promotion forbids."""
    adam = optax.scale_by_adam(*betas, eps)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(updates, state, params)

    return optax.GradientTransformation(adam.init, update)


def _decayed(decays: dict[Path, float]) -> optax.GradientTransformation:
    """optax.add_decayed_weights with a decay for each path."""

    def update(updates, state, params=None):
        def add(keys, gradient, parameter):
            decay = decays[tuple(key.key for key in keys)]
            return gradient + decay * parameter if decay else gradient

        return jax.tree_util.tree_map_with_path(add, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def map_paths(function: Callable[[Path, Any], Any], tree):
    """Maps `function(path, leaf)` over nested dicts."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function(tuple(key.key for key in keys), leaf), tree
    )


def _paths(tree) -> list[Path]:
    return [tuple(key.key for key in keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _is_norm_or_bias(path: Path, known: set[Path]) -> bool:
    """A bias, or the scale beside one; the Encoding layer's `scale` has none and is no norm."""
    return path[-1] == "bias" or (path[-1] == "scale" and (*path[:-1], "bias") in known)


def _depth(path: Path) -> int:
    """Number of stages from the heads down to a parameter: 0 neck and heads, 1 layer4, 5 stem."""
    if path[0] != "backbone":
        return 0
    stages = {"layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4}
    return stages.get(path[1].partition("_")[0], 5)
