"""The kernel's gradient of a dilated convolution, as that of a plain one over the map's phases.

A dilated convolution never mixes pixels of different places modulo the dilation, so each such
phase is an image of its own under a plain convolution. XLA hands a dilated kernel's gradient to
cuDNN as a forward convolution whose window is the whole map; this one as a kernel's gradient.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fastfcn_jax.models.ops import convolution


def kernel_gradient(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int, dilation: int
) -> Float[Array, "p q c k"]:
    """The gradient of a kernel, size x size, at stride 1."""
    return convolution.kernel_gradient(_phases(x, dilation), _phases(gradient, dilation), size)


def _phases(x: Float[Array, "b h w c"], dilation: int) -> Float[Array, "n s t c"]:
    """Returns every dilation-th pixel from each start as an image, zeros where sizes differ."""
    b, h, w, c = x.shape
    rows, columns = -(-h // dilation), -(-w // dilation)
    x = jnp.pad(x, ((0, 0), (0, rows * dilation - h), (0, columns * dilation - w), (0, 0)))
    x = x.reshape(b, rows, dilation, columns, dilation, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, rows, columns, c)
