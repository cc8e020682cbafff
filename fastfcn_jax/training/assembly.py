"""The model, the optimiser and the training step that a configuration describes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from ml_collections import ConfigDict

from fastfcn_jax import models
from fastfcn_jax.config import schema
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError
from fastfcn_jax.models.ops.forms import Forms
from fastfcn_jax.training import class_weights, initial_weights, optim, step, strategy
from fastfcn_jax.training import state as states
from fastfcn_jax.training.region_losses import Terms


class Training(NamedTuple):
    """What trains: `state, metrics = train_step(state, batch, numbers(index of the step))`."""

    model: nn.Module
    state: states.TrainState  # on the host, with the initial weights
    train_step: Any  # a step.TrainStep, to be compiled at its first call
    numbers: Callable[[int], step.Numbers]
    notes: list[str]  # for the user


def build(config: ConfigDict, source: Source, plan: strategy.Strategy) -> Training:
    """Builds all of them; their weights are on the host, the step is not compiled yet.

    Raises:
      UserError: the configuration does not fit the data, or the initial weights cannot be read.
    """
    num_classes = _num_classes(config, source)
    model = models.build(config.model, num_classes, axis_name=strategy.AXIS)
    variables, notes = initial_weights.variables(config, model, source.info)
    optimizer = optim.build(config, variables)
    weights = class_weights.resolve(config.loss.class_weights, source, config.model)
    train_step = make_step(
        config,
        model,
        optimizer,
        num_classes,
        weights=weights,
        accumulate=config.train.accumulate,
        axis_name=strategy.AXIS,
    )
    state = initial_state(config, variables, optimizer)
    numbers = functools.partial(step.numbers, optimizer, config.seed)
    notes = [*notes, _initial_share(config)]
    return Training(model, state, plan.compile(train_step), numbers, notes)


def make_step(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optim.Optimizer,
    num_classes: int,
    *,
    weights: Sequence[float] = (),
    accumulate: int = 1,
    axis_name: str | None = None,
) -> step.TrainStep:
    """The step of a training by `config`, not compiled: see `step.make_train_step`.

    Args:
      weights: one for each class, as `class_weights.resolve` returns them; (): all equal.
      accumulate: micro-batches that the step takes.
      axis_name: mapped axis over which the batch is split, if it is.
    """
    return step.make_train_step(
        model,
        optimizer,
        num_classes=num_classes,
        loss=loss_settings(config, weights),
        forms=Forms(*schema.forms(config.model.forms)),
        normalization=config.loss.normalization,
        accumulate=accumulate,
        ema_decay=config.train.ema_decay,
        ema_warmup=config.train.ema_warmup,
        axis_name=axis_name,
        scaling=models.scaling(config.data),
    )


def initial_state(
    config: ConfigDict, variables: dict[str, Any], optimizer: optim.Optimizer
) -> states.TrainState:
    """The state before the first step of a training by `config`."""
    return states.create(variables, optimizer, ema=config.train.ema_decay > 0)


def loss_settings(config: ConfigDict, weights: Sequence[float] = ()) -> dict[str, Any]:
    """The keyword arguments of `losses.total_loss` in a training by `config`."""
    s = config.loss
    return {
        "terms": Terms(
            weights=schema.loss_terms(s.terms),
            **{key: s[key] for key in Terms._fields if key != "weights"},
        ),
        "auxiliary_weight": s.auxiliary_weight,
        "se_weight": s.se_weight,
        "class_weights": tuple(weights),
        "ohem_threshold": s.ohem_threshold,
        "ohem_min_kept": s.ohem_min_kept,
        "align_corners": config.model.lineage == "official",
        "threshold": config.model.threshold,
    }


def _initial_share(config: ConfigDict) -> str:
    """A note if the moving average would end with more than a hundredth of random weights."""
    train, init = config.train, config.init
    share = train.ema_decay**train.steps
    trained = init.checkpoint and not init.reset_head
    if share < 0.01 or train.ema_warmup or trained:
        return ""
    return (
        f"note: after {train.steps} steps {share:.0%} of the moving average (train.ema_decay="
        f"{train.ema_decay:g}) will still be the initial weights; --config.train.ema_warmup=True "
        "lets the average begin short"
    )


def _num_classes(config: ConfigDict, source: Source) -> int:
    found = len(source.info.class_names)
    wanted = config.model.num_classes or found
    if wanted != found and not models.is_one_channel(config.model, found):
        raise UserError(
            f"config.model.num_classes={wanted}, but {source.info.name} has {found} classes; "
            "set it to 0 to follow the data set."
        )
    return found
