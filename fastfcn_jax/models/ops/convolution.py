"""One general convolution, with XLA's gradients of it: the plain form of every convolution."""

import jax
from jaxtyping import Array, Float


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "p q _ k"], dilation: int = 1, stride: int = 1
) -> Float[Array, "b h2 w2 k"]:
    """Convolves with zero padding dilation * (size - 1) / 2.

    A kernel for fewer channels than x has is applied in groups, (p, q, 1, c) depthwise.
    """
    padding = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def input_gradient(
    gradient: Float[Array, "b h w k"], kernel: Float[Array, "p q c k"], dilation: int = 1
) -> Float[Array, "b h w c"]:
    """The gradient of the input, at stride 1, not depthwise."""
    x = jax.ShapeDtypeStruct((*gradient.shape[:3], kernel.shape[2]), gradient.dtype)
    return jax.linear_transpose(lambda x: convolve(x, kernel, dilation), x)(gradient)[0]


def kernel_gradient(
    x: Float[Array, "b h w c"], gradient: Float[Array, "b h w k"], size: int, dilation: int = 1
) -> Float[Array, "p q c k"]:
    """The gradient of a kernel, size x size, at stride 1, not depthwise."""
    shape = (size, size, x.shape[-1], gradient.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda k: convolve(x, k, dilation), kernel)(gradient)[0]
