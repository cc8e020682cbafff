"""What one training step turns into the next: count, weights, statistics, momentum, average."""

from typing import Any

import flax.struct
import jax.numpy as jnp

from fastfcn_jax.training.optim import Optimizer


@flax.struct.dataclass
class TrainState:
    """A pytree; `ema` is None unless a moving average of `params` is kept.

    `step` counts the steps done (int32 scalar). Leaves are device or NumPy arrays.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What prediction uses: the averaged weights where they are kept."""
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
