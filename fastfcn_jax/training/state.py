"""The training state: step count, weights, batch statistics, momentum, moving average."""

from typing import Any

import flax.struct
import jax.numpy as jnp

from fastfcn_jax.training.optim import Optimizer


@flax.struct.dataclass
class TrainState:
    """A pytree of device or NumPy arrays.

    `step` is the number of steps done (int32 scalar). `ema` is the moving average
    of `params`, or None.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """The variables used for prediction, with averaged weights if there are any."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, "batch_stats": self.batch_stats}


def create(variables: dict[str, Any], optimizer: Optimizer, *, ema: bool = False) -> TrainState:
    """The state before the first step."""
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.transform.init(params),
        ema=params if ema else None,
    )
