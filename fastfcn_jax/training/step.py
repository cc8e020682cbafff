"""One training step, a pure function of its arguments: no clock, file, logger, configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fastfcn_jax.models import IMAGENET, Scaling, layers, normalize
from fastfcn_jax.models.ops.forms import FAST, Forms
from fastfcn_jax.training import device_augment, losses, update
from fastfcn_jax.training.optim import Optimizer, map_paths
from fastfcn_jax.training.state import TrainState

Batch = Mapping[str, Array]
Metrics = dict[str, Array]


class Numbers(NamedTuple):
    """What differs between steps or runs of one program; another value compiles nothing anew.

    learning_rate: of this step.
    seed: of dropout: key = fold_in(fold_in(key(seed), step), replica).
    """

    learning_rate: float
    seed: np.uint32


TrainStep = Callable[[TrainState, Batch, Numbers], tuple[TrainState, Metrics]]


def numbers(optimizer: Optimizer, seed: int, step: int) -> Numbers:
    """The numbers of the step with this 0-based index. Of a seed over 32 bits, the low ones."""
    return Numbers(float(optimizer.learning_rate(step)), np.uint32(seed % 2**32))


def make_train_step(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    num_classes: int,
    loss: Mapping[str, Any],
    normalization: str = "all_pixels",
    accumulate: int = 1,
    ema_decay: float = 0.0,
    ema_warmup: bool = False,
    axis_name: str | None = None,
    forms: Forms = FAST,
    scaling: Scaling = IMAGENET,
) -> TrainStep:
    """Returns `train_step(state, batch, numbers) -> (state, metrics)`.

    A batch holds `image` "b h w c" (normalised here, by `scaling`), `label` uint8 "b h w" and
    `size` int32 "b 2" (height, width before padding), and may hold what `device_augment.augment`
    takes; with a leading axis of `accumulate` micro-batches where that is above 1: their gradients
    are summed, and the update equals that of one batch as large as all of them (BatchNorm's
    statistics and OHEM's choice, taken per micro-batch, aside).

    A loss or gradient that is not finite leaves weights, statistics and momentum as
    they were, and `metrics["finite"]` is False; only the step count moves on.

    Args:
      loss: keyword arguments of `losses.total_loss`.
      normalization: see `losses.denominators`.
      ema_decay: ema += (1 - decay) * (params - ema) after each step; 0: none.
      ema_warmup: the decay is at most (1 + step) / (10 + step), as in TensorFlow's
        `ExponentialMovingAverage` with `num_updates`; otherwise the average of a short training
        is largely its initial weights.
      axis_name: mapped axis over which the batch is split, if it is.
      forms: in which form the operations outside of the model are computed.

    Metrics are scalars, equal on all replicas: `loss` and its parts, `accuracy`,
    `grad_norm`, `learning_rate`, `finite`.
    """

    def gradients(params, batch_stats, batch, key, over):
        batch = device_augment.augment(batch)

        def shard_loss(params):
            outputs, batch_stats_after = forward(params, batch_stats, batch, key)
            total, parts = losses.total_loss(
                outputs,
                batch["label"],
                num_classes,
                over=over,
                axis_name=axis_name,
                forms=forms,
                **loss,
            )
            return total, (batch_stats_after, {"loss": total, **parts})

        # Differentiate this shard's share, then sum: the other order counts replicas twice.
        (_, (batch_stats, parts)), grads = jax.value_and_grad(shard_loss, has_aux=True)(params)
        return grads, parts, batch_stats

    def forward(params, batch_stats, batch, key):
        params = map_paths(
            lambda path, p: jax.lax.stop_gradient(p) if optimizer.frozen(path) else p, params
        )
        images = normalize(batch["image"], batch["size"], scaling)
        with nn.intercept_methods(_frozen_statistics(optimizer)):
            outputs, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
        return outputs, updates["batch_stats"]

    def accumulated(state, batch, key, over):
        def body(carry, micro):
            grads, parts, batch_stats = carry
            batch, index = micro
            own = losses.of_micro_batch(over, index)
            new_grads, new_parts, batch_stats = gradients(
                state.params, batch_stats, batch, jax.random.fold_in(key, index), own
            )
            add = jax.tree.map(jnp.add, (grads, parts), (new_grads, new_parts))
            return (*add, batch_stats), None

        first = jax.tree.map(lambda x: x[0], batch)
        own = losses.of_micro_batch(over, 0)
        shapes = jax.eval_shape(gradients, state.params, state.batch_stats, first, key, own)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[:2])
        micro = (batch, jnp.arange(accumulate))
        return jax.lax.scan(body, (*zeros, state.batch_stats), micro)[0]

    def train_step(state: TrainState, batch: Batch, numbers: Numbers) -> tuple[TrainState, Metrics]:
        over = losses.denominators(
            batch["label"],
            normalization=normalization,
            class_weights=loss.get("class_weights", ()),
            axis_name=axis_name,
        )
        key = jax.random.fold_in(jax.random.key(numbers.seed), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if accumulate == 1:
            grads, parts, batch_stats = gradients(state.params, state.batch_stats, batch, key, over)
        else:
            grads, parts, batch_stats = accumulated(state, batch, key, over)
        if axis_name is not None:
            grads, parts = jax.lax.psum((grads, parts), axis_name)
        norm = update.global_norm(grads, forms)
        rate = jnp.asarray(numbers.learning_rate)
        decay = ema_decay
        if ema_warmup:
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        new = _updated(state, optimizer, grads, norm, rate, batch_stats, decay)
        finite = jnp.isfinite(parts["loss"]) & jnp.isfinite(norm)
        new = update.select(finite, new, state, forms)
        metrics = {**parts, "grad_norm": norm, "learning_rate": rate, "finite": finite}
        return dataclasses.replace(new, step=state.step + 1), metrics

    return train_step


def _updated(
    state: TrainState,
    optimizer: Optimizer,
    grads: Any,
    norm: Float[Array, ""],
    rate: Float[Array, ""],
    batch_stats: Any,
    ema_decay: float | Float[Array, ""],
) -> TrainState:
    if optimizer.clip_norm > 0:  # torch.nn.utils.clip_grad_norm_
        scale = jnp.minimum(optimizer.clip_norm / (norm + 1e-6), 1.0)
        grads = jax.tree.map(lambda g: g * scale, grads)
    directions, opt_state = optimizer.transform.update(grads, state.opt_state, state.params)
    params = jax.tree.map(
        lambda p, d, multiplier: p - rate * multiplier * d,
        state.params,
        directions,
        optimizer.multipliers,
    )
    ema = state.ema
    if ema is not None:
        ema = jax.tree.map(lambda e, p: e + (1.0 - ema_decay) * (p - e), ema, params)
    return dataclasses.replace(
        state, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema
    )


def _frozen_statistics(optimizer: Optimizer):
    """A Linen interceptor under which frozen BatchNorms use their running statistics."""

    def intercept(call, args, kwargs, context):
        module = context.module
        frozen = isinstance(module, layers.BatchNorm) and context.method_name == "__call__"
        if frozen and optimizer.frozen((*module.path, "mean")):
            kwargs = {**kwargs, "train": False}
        return call(*args, **kwargs)

    return intercept
