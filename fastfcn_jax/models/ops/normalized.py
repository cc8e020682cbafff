"""A 1x1 convolution over a normalised map that is never written down.

conv(BN(x)) = conv(x) with the kernel's rows times BatchNorm's factors, plus a constant for each
feature: the convolution sums over the channels that BatchNorm scales. So the map is neither
written nor kept for the backward pass, which finds the gradients of scale, bias and statistics
in the kernel's gradient, with no pass over maps of their own: of the JPU's four depthwise maps
of 1536 channels each.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Float

from fastfcn_jax.models.ops.precision import widen


class Normalized(NamedTuple):
    """(values - mean) * factor + bias, channel by channel."""

    values: Float[Array, "b h w c"]
    mean: Float[Array, " c"]
    factor: Float[Array, " c"]
    bias: Float[Array, " c"]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the map."""
        return self.values.shape


def convolve_normalized(
    forms: Any, x: Normalized, kernel: Float[Array, "1 1 c k"]
) -> Float[Array, "b h w k"]:
    """Convolves in the type of the map; the kernel comes in its own, which may be wider."""
    dtype = x.values.dtype
    scaled = (kernel * x.factor[:, None]).astype(dtype)
    # The mean through the kernel as it was rounded, so that what it cancels is what was added.
    constant = x.bias @ kernel[0, 0] - x.mean @ widen(scaled)[0, 0]
    return forms.convolve(x.values, scaled) + constant.astype(dtype)
