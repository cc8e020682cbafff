"""Test protocols: which scales, flips and windows of an image the network sees, and the weights
that bring its 1/8 maps back to the image's own size.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.resize import Size, bilinear_matrix, keep_ratio_size

Interval = tuple[int, int]  # first pixel, one past the last


@dataclasses.dataclass(frozen=True)
class View:
    """One scaled, perhaps flipped copy of an image, cut into a grid of windows."""

    size: Size
    flip: bool
    rows: tuple[Interval, ...]
    columns: tuple[Interval, ...]

    @property
    def windows(self) -> list[tuple[Interval, Interval]]:
        return list(itertools.product(self.rows, self.columns))


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named way to test: the views of an image of some size, and how their maps are merged."""

    name: str
    definition: str
    views: Callable[[Size], list[View]]
    softmax: bool  # average probabilities over the views; False: logits


def build(
    name: str,
    *,
    test_scale: tuple[int, int],
    ratios: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    crop_size: Size = (512, 1024),
    stride: Size = (341, 683),
) -> Protocol:
    """Makes the protocol `name`.

    Args:
      test_scale: (width, height) an image is scaled into, its ratio kept; (0, 0): as it is.
      ratios: scales of ms_flip and ms_flip_0x.
      crop_size, stride: (height, width) of slide's windows and the steps between them.

    Raises:
      UserError: no protocol of this name.
    """

    def scaled(size: Size) -> Size:
        return keep_ratio_size(size, test_scale) if any(test_scale) else size

    def single(size: Size) -> list[View]:
        return [_whole(scaled(size))]

    def ms_flip(size: Size) -> list[View]:
        return _flips([_scale_factor_size(size, ratio) for ratio in ratios])

    def ms_flip_0x(size: Size) -> list[View]:
        targets = [tuple(int(side * ratio) for side in test_scale) for ratio in ratios]
        return _flips([keep_ratio_size(size, target) for target in targets])

    def slide(size: Size) -> list[View]:
        inner = scaled(size)
        return [View(inner, False, *map(_windows, inner, crop_size, stride))]

    into = f"scaled into {test_scale[0]}x{test_scale[1]}" if any(test_scale) else "at its own size"
    factors = ", ".join(f"{ratio:g}" for ratio in ratios)
    protocols = [
        Protocol("single", f"the whole image {into}; argmax of the logits", single, False),
        Protocol(
            "ms_flip",
            f"the original image times {factors}, each with its mirror image; "
            "argmax of the mean probability (mmsegmentation 1.2.2)",
            ms_flip,
            True,
        ),
        Protocol(
            "ms_flip_0x",
            f"the image scaled into {test_scale[0]}x{test_scale[1]} times {factors}, each with its "
            "mirror image; argmax of the mean probability (mmsegmentation 0.x)",
            ms_flip_0x,
            True,
        ),
        Protocol(
            "slide",
            f"the image {into} in windows of {crop_size[1]}x{crop_size[0]} every "
            f"{stride[1]}x{stride[0]} pixels, the last shifted back inside; "
            "argmax of the mean logits",
            slide,
            False,
        ),
    ]
    for protocol in protocols:
        if protocol.name == name:
            return protocol
    names = ", ".join(protocol.name for protocol in protocols)
    raise UserError(f"protocol {name!r} does not exist; there is {names}.")


def _whole(size: Size, flip: bool = False) -> View:
    return View(size, flip, ((0, size[0]),), ((0, size[1]),))


def _flips(sizes: list[Size]) -> list[View]:
    return [_whole(size, flip) for size in sizes for flip in (False, True)]


def _scale_factor_size(size: Size, ratio: float) -> Size:
    """mmcv's `Resize(scale_factor=ratio, keep_ratio=True)`."""
    target = tuple(int(side * ratio + 0.5) for side in size)
    return keep_ratio_size(size, target)


def _windows(length: int, crop: int, stride: int) -> tuple[Interval, ...]:
    """mmsegmentation's `slide_inference` along one axis."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    stops = [min(i * stride + crop, length) for i in range(count)]
    return tuple((max(stop - crop, 0), stop) for stop in stops)


def upsampling(
    view: View, image_size: Size, map_size: Size, *, align_corners: bool
) -> tuple[Float[np.ndarray, "o nh"], Float[np.ndarray, "w nw"]]:
    """Matrices Y, X so that Y L X' are the view's scores at the image's size.

    L is the mosaic of the windows' 1/8 maps, each padded to `map_size`, in the
    order of the grid. As mmsegmentation: resize to the window, average where
    windows overlap, un-flip, resize to the image.
    """
    rows = _axis(view.rows, view.size[0], image_size[0], map_size[0], False, align_corners)
    columns = _axis(
        view.columns, view.size[1], image_size[1], map_size[1], view.flip, align_corners
    )
    return rows, columns


def _axis(
    intervals: tuple[Interval, ...],
    inner: int,
    outer: int,
    map_length: int,
    flip: bool,
    align_corners: bool,
) -> Float[np.ndarray, "o nm"]:
    count = np.zeros(inner, np.float32)
    for start, stop in intervals:
        count[start:stop] += 1
    mosaic = np.zeros((inner, len(intervals) * map_length), np.float32)
    for i, (start, stop) in enumerate(intervals):
        true = (stop - start + 7) // 8
        part = bilinear_matrix(true, stop - start, align_corners=align_corners)
        mosaic[start:stop, i * map_length : i * map_length + true] = part
    mosaic /= count[:, None]
    if flip:
        mosaic = mosaic[::-1]
    if inner == outer:
        return mosaic
    return bilinear_matrix(inner, outer, align_corners=align_corners) @ mosaic
