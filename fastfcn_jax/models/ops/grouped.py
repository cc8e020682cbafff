"""The gradient of a convolution's kernel where it is applied in groups, as in ResNeXt."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops.convolution import convolve
from fastfcn_jax.models.ops.precision import wide_type

Shape = tuple[int, int, int, int]


def kernel_gradient(
    x: Float[Array, "b h w c"],
    gradient: Float[Array, "b h2 w2 k"],
    shape: Shape,
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "p q _ k"]:
    """One product for each tap and group, in the `wide_type`.

    XLA's own takes two orders of magnitude longer on CPUs.
    """
    size, _, inputs, k = shape
    h2, w2 = gradient.shape[1:3]
    groups, margin = x.shape[-1] // inputs, dilation * (size // 2)
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    of_groups = gradient.reshape(-1, groups, k // groups)
    taps = []
    for top in range(0, size * dilation, dilation):
        for left in range(0, size * dilation, dilation):
            rows = slice(top, top + (h2 - 1) * stride + 1, stride)
            columns = slice(left, left + (w2 - 1) * stride + 1, stride)
            pixels = padded[:, rows, columns].reshape(-1, groups, inputs)
            taps.append(
                jnp.einsum("ngi,ngo->igo", pixels, of_groups, preferred_element_type=wide_type(x))
            )
    return jnp.stack(taps).reshape(shape)


def kernel_gradient_plain(
    x: Float[Array, "b h w c"],
    gradient: Float[Array, "b h2 w2 k"],
    shape: Shape,
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "p q _ k"]:
    """XLA's own."""
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda k: convolve(x, k, dilation, stride), kernel)(gradient)[0]
