"""Temporary memory of a compiled training step, which the compiler computes: no times."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from fastfcn_jax.models.layers import Common, ConvModule, SeparableConv
from fastfcn_jax.training import strategy

SHAPE = (2, 32, 32, 128)  # 1 MiB
LAYERS = 4


class Wide(nn.Module):
    """Plain 3x3 convolutions, of Winograd's tiles on a CPU."""

    @nn.compact
    def __call__(self, x):
        for _ in range(LAYERS):
            x = ConvModule(128, Common(), 3)(x, train=True)
        return x


class Separable(nn.Module):
    """Four branches over one map, like the JPU's."""

    @nn.compact
    def __call__(self, x):
        return sum(SeparableConv(128, Common(), 2**i)(x, train=True) for i in range(LAYERS))


def maps_of_a_step(model: nn.Module, name: str) -> float:
    """Temporary memory of a step, in maps."""

    def step(params, batch, rate):
        def loss(params):
            y, _ = model.apply({"params": params}, batch["x"], mutable=["batch_stats"])
            return (y * batch["weights"]).sum()

        gradients = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradients)

    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    sharded = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    plan = strategy.Strategy(name, (jax.devices("cpu")[0],))
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    program = plan.compile(step).lower(params, {"x": sharded, "weights": sharded}, rate).compile()
    return program.memory_analysis().temp_size_in_bytes / x.size / 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pmap", "jit"])
@pytest.mark.parametrize(("model", "most"), [(Wide(), 14), (Separable(), 5.5)])
def test_step_keeps_few_maps_of_a_layer(model, most, name):
    assert maps_of_a_step(model, name) < most
