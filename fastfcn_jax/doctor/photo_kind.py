"""Finds what the photographs of a folder hold, 8-bit RGB or another kind, and measures that."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from fastfcn_jax.data import rasters
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import read_file
from fastfcn_jax.doctor.bad_files import counted
from fastfcn_jax.errors import UserError

Channels = Literal["auto", "rgb", "all"]
GREY = PixelType(1, "uint8")


class Moments(NamedTuple):
    """Statistics of the finite values of some images, channel by channel.

    count, total, squares: number of values, their sum, the sum of squared distances from the mean;
    low, high: smallest and largest value; bits: all values by bitwise or (0 for float32); missing:
    number of values, of all channels, that are NaN or infinite.
    """

    count: Float[np.ndarray, " c"]
    total: Float[np.ndarray, " c"]
    squares: Float[np.ndarray, " c"]
    low: Float[np.ndarray, " c"]
    high: Float[np.ndarray, " c"]
    bits: int
    missing: int

    @property
    def mean(self) -> Float[np.ndarray, " c"]:
        return self.total / np.maximum(self.count, 1)

    @property
    def deviation(self) -> Float[np.ndarray, " c"]:
        """Standard deviation; 1 for a channel of one value, which cannot be scaled."""
        found = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(found > 0, found, 1.0)

    @property
    def scaling(self) -> list[tuple[float, float]]:
        """(mean, deviation) of each channel, to six digits."""
        pairs = zip(self.mean.tolist(), self.deviation.tolist(), strict=True)
        return [(float(f"{mean:.6g}"), float(f"{deviation:.6g}")) for mean, deviation in pairs]


def measure(image: Num[np.ndarray, "h w c"]) -> Moments:
    """Statistics of one image."""
    values = image.reshape(-1, image.shape[2])
    if image.dtype.kind == "u":
        wide, bits = values.astype(np.float64), int(np.bitwise_or.reduce(values, axis=None))
        known = np.ones(values.shape, bool)
    else:
        known, bits = np.isfinite(values), 0
        wide = np.where(known, values, 0).astype(np.float64)
    count, total = known.sum(0).astype(np.float64), wide.sum(0)
    away = np.where(known, wide - total / np.maximum(count, 1), 0)
    low = np.where(known, wide, np.inf).min(0)
    high = np.where(known, wide, -np.inf).max(0)
    return Moments(count, total, np.square(away).sum(0), low, high, bits, int((~known).sum()))


def together(parts: Iterable[Moments]) -> Moments:
    """Statistics of several images, by Chan's formula for the squares."""
    first, *rest = parts
    for other in rest:
        count = first.count + other.count
        both = np.square(first.mean - other.mean) * first.count * other.count
        first = Moments(
            count,
            first.total + other.total,
            first.squares + other.squares + both / np.maximum(count, 1),
            np.minimum(first.low, other.low),
            np.maximum(first.high, other.high),
            first.bits | other.bits,
            first.missing + other.missing,
        )
    return first


def find(
    folder: Path, photos: Sequence[Path], channels: Channels = "auto"
) -> tuple[PixelType, list[str]]:
    """The type of most photographs, and lines about it unless that is 8-bit RGB.

    Grey photographs have one channel if all are grey: among colour pictures they are read as RGB.
    The transparency of PNG and WebP is no channel, unless `channels` is "all".
    """
    if channels == "rgb":
        return RGB, []
    with ThreadPoolExecutor() as pool:
        stored = pool.map(lambda photo: _type(folder / photo, channels), photos)
        found = Counter(pixel for pixel in stored if pixel is not None)
    if not found or (found.keys() <= {RGB, GREY} and RGB in found):
        return RGB, []
    kind = found.most_common(1)[0][0]
    if kind == RGB or (kind == GREY and len(found) > 1):
        return RGB, _others(found)
    remedy = " (--channels rgb reads them as 8-bit RGB)" if kind.channels <= 4 else ""
    return kind, [f"photos have {kind}{remedy}"]


def _others(found: Mapping[PixelType, int]) -> list[str]:
    """Lines about photographs that are read as 8-bit RGB although they hold more."""
    return [
        f"  {counted(count, 'photo')} with {pixel} read as 8-bit RGB, like the others"
        for pixel, count in found.items()
        if pixel not in (RGB, GREY)
    ]


def _type(path: Path, channels: Channels) -> PixelType | None:
    """Type of a photograph; None if it is damaged, which is reported when it is decoded."""
    try:
        pixel, has_alpha = rasters.stored_type(read_file(str(path)), str(path))
    except UserError:
        return None
    if has_alpha and channels != "all":
        return pixel._replace(channels=pixel.channels - 1)
    return pixel


def describe(pixel: PixelType, found: Moments) -> list[str]:
    """Lines about the values of all photographs."""
    rows = np.stack((found.mean, found.deviation, found.low, found.high), axis=1).tolist()
    lines = [
        f"  channel {i}: mean {mean:.6g}, deviation {deviation:.6g}, values {low:.6g} to {high:.6g}"
        for i, (mean, deviation, low, high) in enumerate(rows, start=1)
    ]
    constant = [i for i, squares in enumerate(found.squares, start=1) if squares == 0]
    if constant:
        listed = ", ".join(map(str, constant))
        lines.append(f"  channel {listed} holds one value in all photos: it says nothing")
    if line := _bits(pixel, found):
        lines.append(line)
    if found.missing:
        share = 100 * found.missing / (found.count.sum() + found.missing)
        lines.append(
            f"  {share:.2g} % of the values are NaN or infinite, and count as their channel's mean"
        )
    return lines


def _bits(pixel: PixelType, found: Moments) -> str:
    """A line about 16-bit files that hold fewer bits; "" if they hold 15 or 16."""
    if pixel.dtype != "uint16" or not found.bits:
        return ""
    unused = (found.bits & -found.bits).bit_length() - 1  # lowest bits that are always 0
    highest = found.bits.bit_length()
    if highest <= 14:
        return (
            f"  the largest value is {found.high.max():.0f}: {highest}-bit data in 16-bit files, "
            "which data.scaling allows for"
        )
    if unused >= 2:
        return (
            f"  the lowest {unused} bits are always 0: {highest - unused}-bit data in the upper "
            "bits of 16-bit files, which data.scaling allows for"
        )
    return ""
