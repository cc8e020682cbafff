"""Flip and photometric distortion within the training step, by the numbers that the host drew.

OpenCV's arithmetic on uint8, so that the result is the host's but for rounding.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, UInt8

Pixels = Num[Array, "h w c"]
Colors = UInt8[Array, "h w 3"]
Plane = Num[Array, "h w"]


def augment(batch: Mapping[str, Array]) -> dict[str, Array]:
    """Flips and distorts `image` and `label` if the batch holds `flip` and `distortion`.

    See `data.augment.device_draws`. Padding stays padding: image 0, label 255.
    """
    batch = dict(batch)
    if (flip := batch.pop("flip", None)) is not None:
        for name in ("image", "label"):
            batch[name] = jax.vmap(_flipped)(batch[name], flip, batch["size"])
    if (distortion := batch.pop("distortion", None)) is not None:
        distorted = jax.vmap(distort)(batch["image"], distortion)
        batch["image"] = jax.vmap(_blank_outside)(distorted, batch["size"])
    return batch


def distort(image: Colors, drawn: Float[Array, "5"]) -> Colors:
    """`mmseg.photometric_distortion` with the numbers of `device_draws`; each NaN is a change less.

    The values after each change are whole, as on the host.
    """
    brightness, contrast_before, saturation, hue, contrast_after = drawn
    planes = tuple(image[..., k].astype(jnp.float32) for k in range(3))
    planes = _where_drawn(brightness, lambda x: _whole(x + brightness), planes)
    planes = _where_drawn(contrast_before, lambda x: _whole(x * contrast_before), planes)
    for factor, turn in ((saturation, 0.0), (1.0, hue)):
        is_drawn = ~jnp.isnan(factor) & ~jnp.isnan(turn)
        changed = _in_hsv(planes, factor, turn)
        planes = tuple(jnp.where(is_drawn, *pair) for pair in zip(changed, planes, strict=True))
    planes = _where_drawn(contrast_after, lambda x: _whole(x * contrast_after), planes)
    return jnp.stack(planes, axis=-1).astype(jnp.uint8)


def _flipped(array: Num[Array, "h w *c"], flip: Bool[Array, ""], size: Int[Array, "2"]):
    """Mirrors the columns in front of the padding."""
    column = jnp.arange(array.shape[1], dtype=size.dtype)
    source = jnp.where(flip & (column < size[1]), size[1] - 1 - column, column)
    return jnp.take(array, source, axis=1, mode="clip")


def _blank_outside(image: Pixels, size: Int[Array, "2"]) -> Pixels:
    inside = jnp.ones((), bool)
    for axis in (0, 1):
        place = jax.lax.broadcasted_iota(size.dtype, image.shape, axis)
        inside &= place < size[axis]
    return jnp.where(inside, image, jnp.zeros((), image.dtype))


def _where_drawn(drawn: Float[Array, ""], change, planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
    return tuple(jnp.where(jnp.isnan(drawn), x, change(x)) for x in planes)


def _whole(x: Plane) -> Plane:
    """As a conversion to uint8 that saturates leaves it."""
    return jnp.floor(jnp.clip(x, 0.0, 255.0))


def _in_hsv(planes: tuple[Plane, ...], factor, turn) -> tuple[Plane, ...]:
    """Multiplies OpenCV's uint8 saturation and turns its hue, of 180 steps."""
    hue, saturation, value = _to_hsv(*planes)
    turned = jnp.mod(hue + turn, 180.0)
    return _to_rgb(turned, _whole(saturation * factor), value)


def _to_hsv(r: Plane, g: Plane, b: Plane) -> tuple[Plane, Plane, Plane]:
    """OpenCV's COLOR_RGB2HSV of whole values, in its fixed-point arithmetic of 12 bits."""
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    sector = jnp.where(
        value == r, g - b, jnp.where(value == g, b - r + 2.0 * chroma, r - g + 4.0 * chroma)
    )
    hue = _fixed_point(sector, 180.0 / 6.0, chroma)
    saturation = _fixed_point(chroma, 255.0, value)
    return jnp.where(hue < 0.0, hue + 180.0, hue), saturation, value


def _fixed_point(x: Plane, scale: float, divisor: Plane) -> Plane:
    """x * scale / divisor, rounded as OpenCV does; 0 for a divisor of 0."""
    inverse = jnp.rint(scale * 2.0**12 / jnp.maximum(divisor, 1.0)).astype(jnp.int32)
    return ((x.astype(jnp.int32) * inverse + 2**11) >> 12).astype(jnp.float32)


def _to_rgb(hue: Plane, saturation: Plane, value: Plane) -> tuple[Plane, Plane, Plane]:
    """OpenCV's COLOR_HSV2RGB of whole values."""
    place = hue * (6.0 / 180.0)
    sector = jnp.floor(place)
    rest, s, v = place - sector, saturation * (1.0 / 255.0), value * (1.0 / 255.0)
    low, falling, rising = v * (1.0 - s), v * (1.0 - s * rest), v * (1.0 - s * (1.0 - rest))
    sectors = [sector == i for i in range(5)]
    red = jnp.select(sectors, [v, falling, low, low, rising], v)
    green = jnp.select(sectors, [rising, v, v, falling, low], low)
    blue = jnp.select(sectors, [low, low, rising, v, v], falling)
    red, green, blue = (jnp.floor(x * 255.0) for x in (red, green, blue))
    return red, green, blue
