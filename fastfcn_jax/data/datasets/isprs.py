"""What Potsdam and Vaihingen share: the classes of the ISPRS benchmark and their colour labels."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data.source import IGNORE_LABEL, DatasetInfo, LabelTable
from fastfcn_jax.errors import UserError

# Names and colours as in mmsegmentation 1.2.2, mmseg/datasets/potsdam.py and isprs.py.
CLASSES = (
    ("impervious_surface", (255, 255, 255)),
    ("building", (0, 0, 255)),
    ("low_vegetation", (0, 255, 255)),
    ("tree", (0, 255, 0)),
    ("car", (255, 255, 0)),
    ("clutter", (255, 0, 0)),
)
MAX_UNKNOWN = 0.1  # share of pixels; a published file has its cars in a wrong shade of yellow


def info(name: str) -> DatasetInfo:
    """The six classes under the name of one of the two cities."""
    palette = np.array([c for _, c in CLASSES], np.uint8)
    return DatasetInfo(name, tuple(n for n, _ in CLASSES), palette, tuple(c for _, c in CLASSES))


def tile_labels(city: str) -> LabelTable:
    """The index labels of mmsegmentation's tiles."""
    return LabelTable(range(1, 7), [0], f"{city} (0 = boundary, 1..6)")


@dataclass(frozen=True)
class ColorLabels:
    """Maps the published colour labels to class indices.

    Black (object boundaries) and colours that are no class become 255, as in mmsegmentation's
    converters.
    """

    city: str

    def __call__(self, stored: np.ndarray, name: str) -> UInt8[np.ndarray, "h w"]:
        if stored.ndim != 3:
            raise UserError(f"{name}: not a colour picture, as the labels of {self.city} are.")
        code = cv2.transform(cv2.LUT(stored, _BITS), np.ones((1, 3), np.float32))
        unknown = np.count_nonzero(code >= _OTHER) / code.size
        if unknown > MAX_UNKNOWN:
            raise UserError(
                f"{name}: {unknown:.0%} of its pixels have none of the colours of {self.city}; "
                "copy the published file again (a lossy JPEG label cannot be used)."
            )
        return cv2.LUT(code, _CLASS_OF_CODE)


# All colours have channels of 0 or 255: each 255 sets a bit of the colour's code.
_OTHER = 8
_BITS = np.full((1, 256, 3), _OTHER, np.uint8)
_BITS[0, 0], _BITS[0, 255] = 0, (1, 2, 4)
_CLASS_OF_CODE = np.full(256, IGNORE_LABEL, np.uint8)
for _index, (_, _color) in enumerate(CLASSES):
    _CLASS_OF_CODE[np.dot(np.array(_color) // 255, (1, 2, 4))] = _index
