"""The model, the optimiser and the training step that a configuration describes."""

import functools
from collections.abc import Callable
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
    s = config.loss
    train_step = step.make_train_step(
        model,
        optimizer,
        num_classes=num_classes,
        loss={
            "terms": Terms(
                weights=schema.loss_terms(s.terms),
                **{key: s[key] for key in Terms._fields if key != "weights"},
            ),
            "auxiliary_weight": s.auxiliary_weight,
            "se_weight": s.se_weight,
            "class_weights": class_weights.resolve(s.class_weights, source, config.model),
            "ohem_threshold": s.ohem_threshold,
            "ohem_min_kept": s.ohem_min_kept,
            "align_corners": config.model.lineage == "official",
            "threshold": config.model.threshold,
        },
        forms=Forms(*schema.forms(config.model.forms)),
        normalization=s.normalization,
        accumulate=config.train.accumulate,
        ema_decay=config.train.ema_decay,
        ema_warmup=config.train.ema_warmup,
        axis_name=strategy.AXIS,
        scaling=models.scaling(config.data),
    )
    state = states.create(variables, optimizer, ema=config.train.ema_decay > 0)
    numbers = functools.partial(step.numbers, optimizer, config.seed)
    notes = [*notes, _initial_share(config.train)]
    return Training(model, state, plan.compile(train_step), numbers, notes)


def _initial_share(train: ConfigDict) -> str:
    """A note if the moving average would end with more than a hundredth of initial weights."""
    share = train.ema_decay**train.steps
    if share < 0.01 or train.ema_warmup:
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
