"""Times compiled functions in turns and compares them with the rates the device attains."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastfcn_jax.training import strategy


class Cost(NamedTuple):
    """What a call of a compiled function costs.

    flops: of convolutions and matrix products, twice their multiply-accumulates.
    bytes: read and written by the compiled program, without those of libraries (cuDNN, cuBLAS).
    temporary_bytes: memory besides arguments and results.
    library_calls: number of calls of such libraries in the program.
    """

    flops: int
    bytes: float
    temporary_bytes: int
    library_calls: int


class Rates(NamedTuple):
    """Attained per second: operations in matrix products, and bytes read and written in copies."""

    flops: float
    bandwidth: float

    def floor(self, cost: Cost) -> float:
        """Lower bound on the seconds that `cost` takes, by the roofline model."""
        return max(cost.flops / self.flops, cost.bytes / self.bandwidth)

    def bound(self, cost: Cost) -> str:
        if cost.flops / self.flops <= cost.bytes / self.bandwidth:
            return "memory traffic"
        return "arithmetic or libraries' traffic" if cost.library_calls else "arithmetic"


class Compiled:
    """A function compiled for given arguments; a call does not wait for the device.

    donate: the first result reuses the memory of the first argument and replaces it in the next
      call, as the state of a training does, and the compiler has the options of a training.
    """

    def __init__(self, function: Callable, *arguments: Any, donate: bool = False):
        self.arguments = arguments
        self.donate = donate
        jitted = jax.jit(
            function,
            donate_argnums=(0,) if donate else (),
            compiler_options=strategy.compiler_options(jax.default_backend()) if donate else None,
        )
        self.program = jitted.lower(*arguments).compile()
        memory = self.program.memory_analysis()
        self.cost = Cost(
            flops(function, *arguments),
            float((self.program.cost_analysis() or {}).get("bytes accessed", 0.0)),
            memory.temp_size_in_bytes if memory else 0,
            (self.program.as_text() or "").count('custom_call_target="__'),
        )

    def __call__(self) -> Any:
        results = self.program(*self.arguments)
        if self.donate:
            self.arguments = (results[0], *self.arguments[1:])
        return results


def flops(function: Callable, *arguments: Any, platform: str | None = None) -> int:
    """Operations of all convolutions and matrix products in one call.

    They are counted in the traced function as it runs on `platform` ("cpu", "cuda", "tpu"; None:
    this backend), so a convolution that is computed in another way counts with what that takes.
    Products with zero padding count too.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    return 2 * _macs(traced.jaxpr, platform or jax.default_backend())


def _macs(jaxpr, platform: str) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        result: Any = equation.outvars[0].aval if equation.outvars else None
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            total += result.size * int(np.prod([lhs[i] for i in contracted]))
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            total += result.size * kernel.size // outputs
        else:
            times = equation.params.get("length", 1) if name == "scan" else 1
            inner = [_macs(sub, platform) for sub in _inner(equation.params)]
            branched = name == "cond"
            total += times * (_branch(equation.params, inner, platform) if branched else sum(inner))
    return total


def _branch(parameters: Mapping[str, Any], macs: list[int], platform: str) -> int:
    """The count of the platform's branch if the branches are for platforms, else the largest."""
    for platforms, count in zip(parameters.get("branches_platforms") or (), macs, strict=False):
        if platforms is None or platform in platforms:
            return count
    return max(macs)


def _inner(parameters: Mapping[str, Any]):
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                item = item.jaxpr
            if hasattr(item, "eqns"):
                yield item


def in_turns(
    functions: Mapping[Any, Callable[[], Any]], rounds: int = 5, calls: int | None = None
) -> dict[Any, list[float]]:
    """Returns the seconds per call of each function in each round, after one call to warm up.

    The functions take turns in every round: if the machine slows down, all are affected alike.

    Args:
      calls: calls in a turn, which waits for the last; None: one on a CPU, twenty elsewhere, so
        that the time to start a program does not dominate.
    """
    calls = calls or (1 if jax.default_backend() == "cpu" else 20)
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[Any, list[float]] = {name: [] for name in functions}
    for turn in range(rounds):
        for name in list(functions)[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            for _ in range(calls):
                result = functions[name]()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def rates(dtype=jnp.float32, *, side: int | None = None, rounds: int = 5) -> Rates:
    """Measures a product of two matrices of `side` and a copy of eight such matrices."""
    if side is None:
        side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    many = jnp.broadcast_to(a, (8, side, side)) + jnp.zeros((8, 1, 1), dtype)
    seconds = in_turns(
        {
            "product": Compiled(lambda a: a @ a, a),
            "copy": Compiled(lambda x: x + jnp.ones((), dtype), many),
        },
        rounds,
    )
    return Rates(2 * side**3 / min(seconds["product"]), 2 * many.nbytes / min(seconds["copy"]))
