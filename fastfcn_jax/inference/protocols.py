"""Test protocols: the scales, flips and windows of an image that go through the network."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.rescale import Size, keep_ratio_size

Interval = tuple[int, int]  # first pixel, and one past the last


@dataclasses.dataclass(frozen=True)
class Windows:
    """A grid of windows over the scaled image.

    shifted_back: the last window ends at the border, and an image smaller than a window gives a
      smaller one (mmsegmentation). Otherwise windows keep their size and may extend beyond the
      border, into black padding (official).
    """

    size: Size
    stride: Size
    shifted_back: bool

    def grid(self, size: Size) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
        """Intervals of the windows' rows and columns on a scaled image of `size`."""
        rows, columns = map(self._axis, size, self.size, self.stride)
        return rows, columns

    def _axis(self, length: int, window: int, stride: int) -> tuple[Interval, ...]:
        count = -(-max(length - window, 0) // stride) + 1
        starts = [i * stride for i in range(count)]
        if not self.shifted_back:
            return tuple((start, start + window) for start in starts)
        stops = [min(start + window, length) for start in starts]
        return tuple((max(stop - window, 0), stop) for stop in stops)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named way to test.

    scales: function from an image's size to its scaled sizes; their number is fixed.
    flips: whether each pass over a scale is flipped.
    merge: what is summed over scales and flips at the image's own size: "logits",
      "probabilities", or the official evaluator's unnormalised "exponentials".
    windows: how a scaled image is cut; None: not at all.
    keeps_fractions: images are scaled in floating point (PaddleSeg), not in their own type.
    """

    name: str
    definition: str
    scales: Callable[[Size], Sequence[Size]]
    flips: tuple[bool, ...] = (False,)
    merge: str = "logits"
    windows: Windows | None = None
    keeps_fractions: bool = False

    @property
    def is_official(self) -> bool:
        """Whether images are resized with align_corners, and absent classes count as 0."""
        return self.merge == "exponentials"

    def grid(self, scale: Size) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
        """Intervals of the rows and columns of each pass over an image scaled to `scale`."""
        if self.windows is None:
            return ((0, scale[0]),), ((0, scale[1]),)
        return self.windows.grid(scale)

    def cost(self, size: Size) -> tuple[int, int]:
        """(passes through the network, pixels through the network) for an image of `size`."""
        passes = pixels = 0
        for scale in self.scales(size):
            rows, columns = self.grid(scale)
            passes += len(self.flips) * len(rows) * len(columns)
            height, width = (sum(stop - start for start, stop in axis) for axis in (rows, columns))
            pixels += len(self.flips) * height * width
        return passes, pixels


def counted(number: int, word: str, plural: str = "") -> str:
    return f"{number} {word}" if number == 1 else f"{number} {plural or word + 's'}"


def describe_cost(protocol: Protocol, sizes: Iterable[Size], what: str = "image") -> str:
    """One line with the passes and pixels for images of these sizes; `what` names an image."""
    costs = [protocol.cost(size) for size in sizes]
    passes = sum(passes for passes, _ in costs)
    pixels = sum(pixels for _, pixels in costs)
    return (
        f"{counted(len(costs), what)}, {counted(passes, 'pass', 'passes')}, "
        f"{pixels / 1e6:.1f} megapixels through the network"
    )


NAMES = (
    *("single", "flip", "ms_flip", "ms_flip_0x", "slide"),
    *("official", "official_ms", "paddleseg_ms"),
)


def build(
    name: str,
    *,
    test_scale: tuple[int, int],
    ratios: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    crop_size: Size = (512, 1024),
    stride: Size = (341, 683),
    base_size: int = 520,
    window: int = 480,
) -> Protocol:
    """Makes the protocol `name`.

    Args:
      test_scale: (width, height) that an image is scaled to fit; (0, 0): not scaled.
      ratios: scales of the multi-scale protocols.
      crop_size, stride: (height, width) of slide's windows and the steps between them.
      base_size, window: long side and window of the official evaluator at ratio 1.

    Raises:
      UserError: no protocol of this name, or ms_flip_0x without a test_scale.
    """
    if name in ("single", "flip", "slide"):
        windows = Windows(crop_size, stride, shifted_back=True) if name == "slide" else None
        return _one_scale(name, test_scale, windows)
    if name == "paddleseg_ms":
        return _paddleseg(tuple(ratios))
    if name in ("ms_flip", "ms_flip_0x"):
        return _multi_scale(name, test_scale, tuple(ratios))
    if name in ("official", "official_ms"):
        return _official(
            name, tuple(ratios) if name == "official_ms" else (1.0,), base_size, window
        )
    raise UserError(f"protocol {name!r} does not exist; there is {', '.join(NAMES)}.")


def _one_scale(name: str, test_scale: tuple[int, int], windows: Windows | None) -> Protocol:
    own_size = not any(test_scale)
    into = "at its own size" if own_size else f"scaled to fit {test_scale[0]}x{test_scale[1]}"
    cut, flips = "whole image", (False, True) if name == "flip" else (False,)
    if name == "flip":
        cut += ", plain and flipped"
    if windows is not None:
        cut = (
            f"windows of {windows.size[1]}x{windows.size[0]} every {windows.stride[1]}x"
            f"{windows.stride[0]} pixels, the last shifted back inside"
        )
    return Protocol(
        name,
        f"each image {into}; {cut}; argmax of the {'' if name == 'single' else 'mean '}logits",
        lambda size: [size if own_size else keep_ratio_size(size, test_scale)],
        flips=flips,
        windows=windows,
    )


def _multi_scale(name: str, test_scale: tuple[int, int], ratios: tuple[float, ...]) -> Protocol:
    """mmsegmentation's test-time augmentation: of 1.2.2, or of 0.x (the published scores)."""
    factors = ", ".join(f"{ratio:g}" for ratio in ratios)
    if name == "ms_flip":
        version, scaled = "1.2.2", "the original size"

        def scale(size: Size, ratio: float) -> Size:
            height, width = (max(int(side * ratio + 0.5), 1) for side in size)
            return keep_ratio_size(size, (height, width))

    else:
        if not any(test_scale):
            raise UserError("protocol ms_flip_0x needs config.data.test_scale; ms_flip does not.")
        version, scaled = "0.x", f"the size that fits {test_scale[0]}x{test_scale[1]}"

        def scale(size: Size, ratio: float) -> Size:
            long, short = (max(int(side * ratio), 1) for side in test_scale)
            return keep_ratio_size(size, (long, short))

    return Protocol(
        name,
        f"each image at {factors} times {scaled}, plain and flipped; "
        f"argmax of the mean probability (mmsegmentation {version})",
        lambda size: [scale(size, ratio) for ratio in ratios],
        flips=(False, True),
        merge="probabilities",
    )


def _paddleseg(ratios: tuple[float, ...]) -> Protocol:
    """PaddleSeg's `aug_inference` with `--flip_horizontal`; its scales are 0.75, 1 and 1.25."""

    def scale(size: Size, ratio: float) -> Size:
        height, width = (max(int(side * ratio + 0.5), 1) for side in size)
        return height, width

    factors = ", ".join(f"{ratio:g}" for ratio in ratios)
    return Protocol(
        "paddleseg_ms",
        f"each image at {factors} times its own size, plain and flipped; argmax of the mean logits "
        "(PaddleSeg)",
        lambda size: [scale(size, ratio) for ratio in ratios],
        flips=(False, True),
        keeps_fractions=True,
    )


def _official(name: str, ratios: tuple[float, ...], base_size: int, window: int) -> Protocol:
    """The evaluator of wuhuikai/FastFCN (`MultiEvalModule`)."""

    def scale(size: Size, ratio: float) -> Size:
        long = math.ceil(base_size * ratio)
        height, width = size
        if height > width:
            return long, max(int(1.0 * width * long / height + 0.5), 1)
        return max(int(1.0 * height * long / width + 0.5), 1), long

    stride = int(window * 2 / 3)
    factors = ", ".join(f"{ratio:g}" for ratio in ratios)
    mirrored = ", plain and flipped" if name == "official_ms" else ""
    return Protocol(
        name,
        f"long side {base_size} times {factors}{mirrored}; windows of {window}x{window} every "
        f"{stride} pixels, padded with black; argmax of the sum of exponentials; "
        "a class that occurs nowhere counts as 0 (wuhuikai/FastFCN)",
        lambda size: [scale(size, ratio) for ratio in ratios],
        flips=(False, True) if name == "official_ms" else (False,),
        merge="exponentials",
        windows=Windows((window, window), (stride, stride), shifted_back=False),
    )
