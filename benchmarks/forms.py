"""The single operations whose forms `gpu_program.py` and `time_forms.py` compare."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from fastfcn_jax.models.ops import depthwise, encoding

Form = tuple[str, Callable, tuple]


def all_forms(num_classes: int, dtype=jnp.bfloat16, batch: int = 8) -> Iterator[Form]:
    """Yields (name, function, shapes of its arguments) at the sizes of 512x1024 images."""
    yield from _depthwise(dtype, batch)
    yield from _encoding(dtype, batch)


def _depthwise(dtype, batch) -> Iterator[Form]:
    """JPU's four dilations over 1536 channels."""
    x = jax.ShapeDtypeStruct((batch, 64, 128, 1536), dtype)
    kernels = jax.ShapeDtypeStruct((4, 3, 3, 1, 1536), dtype)
    for form in (depthwise.depthwise_conv_direct, depthwise.depthwise_conv):

        def forward(x, kernels, form=form):
            return [form(x, kernels[i], 2**i) for i in range(4)]

        name = form.__name__
        yield f"{name} forward", forward, (x, kernels)
        cotangent = [x] * 4
        yield (
            f"{name} input gradient",
            lambda x, k, g, f=forward: jax.vjp(lambda x: f(x, k), x)[1](g),
            (x, kernels, cotangent),
        )
        yield (
            f"{name} kernel gradient",
            lambda x, k, g, f=forward: jax.vjp(lambda k: f(x, k), k)[1](g),
            (x, kernels, cotangent),
        )


def _encoding(dtype, batch) -> Iterator[Form]:
    x = jax.ShapeDtypeStruct((batch, 64 * 128, 512), dtype)
    codewords = jax.ShapeDtypeStruct((32, 512), jnp.float32)
    scale = jax.ShapeDtypeStruct((32,), jnp.float32)
    for form in (encoding.encode_direct, encoding.encode):
        yield f"{form.__name__} forward", form, (x, codewords, scale)

        def gradient(*arguments, form=form):
            return jax.grad(lambda *a: form(*a).sum(), argnums=(0, 1, 2))(*arguments)

        yield f"{form.__name__} gradient", gradient, (x, codewords, scale)
