"""The interface of a data set: a random-access source of images with their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, SupportsIndex, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Num, UInt8

from fastfcn_jax.data import decode, rasters
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError

IGNORE_LABEL = 255


@dataclass(frozen=True)
class DatasetInfo:
    """Name, class names in label order and their colours (uint8 RGB, one row per class).

    values: what the label files hold for each class, a number or an RGB colour; None: not known.
    """

    name: str
    class_names: tuple[str, ...]
    palette: np.ndarray
    values: tuple[int | tuple[int, int, int], ...] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def stored_values(
    listed: Sequence[int | Sequence[int]] | None,
) -> tuple[int | tuple[int, int, int], ...] | None:
    """`DatasetInfo.values` from JSON, which has lists for the colours."""
    if listed is None:
        return None
    return tuple(v if isinstance(v, int) else (v[0], v[1], v[2]) for v in listed)


class Sample(NamedTuple):
    """One labelled image in its original size; label 255 is ignored."""

    id: str
    image: Num[np.ndarray, "h w c"]  # uint8 RGB, unless `config.data` says otherwise
    label: UInt8[np.ndarray, "h w"]


@runtime_checkable
class Source(Protocol):
    """Random access to labelled images; `ids` name them, in a fixed order."""

    @property
    def info(self) -> DatasetInfo: ...

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: SupportsIndex) -> Sample: ...


class Encoded(NamedTuple):
    """One labelled image as the bytes of its files; the names appear in error messages."""

    image: bytes
    label: bytes
    image_name: str
    label_name: str


@runtime_checkable
class Reader(Protocol):
    """Reads sample `index` from files; `files` lists them all."""

    def __call__(self, index: int) -> Encoded: ...

    def files(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class EncodedSource:
    """A source whose images and labels are files (or records) in a compressed format.

    `read(i)` returns the bytes; `to_classes(stored, name)` maps stored label values to class
    indices, with 255 for ignored pixels, and raises `UserError` for any other value. Images must be
    of type `pixel`, see `rasters.image`.
    """

    info: DatasetInfo
    ids: Sequence[str]
    read: Reader
    to_classes: Callable[[np.ndarray, str], UInt8[np.ndarray, "h w"]]
    pixel: PixelType = RGB

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Reads and decodes sample `index`; see `decode`."""
        return self.decode(int(index), self.read(int(index)))

    def decode(self, index: int, files: Encoded) -> Sample:
        """Pixels and class indices from the bytes that `read(index)` returned.

        Raises:
          UserError: a file is damaged or of another type, or image and label differ in size.
        """
        image = rasters.image(files.image, files.image_name, self.pixel)
        label = self.to_classes(decode.label(files.label, files.label_name), files.label_name)
        check_sizes(files, image, label)
        return Sample(self.ids[index], image, label)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, without decoding it.

        Raises:
          UserError: the file is not an image.
        """
        files = self.read(index)
        return rasters.size(files.image, files.image_name, self.pixel)


@dataclass(frozen=True)
class Files:
    """Reads pairs of files: the `read` of an `EncodedSource` over plain folders."""

    images: tuple[str, ...]
    labels: tuple[str, ...]

    def __call__(self, index: int) -> Encoded:
        image, label = self.images[index], self.labels[index]
        return Encoded(read_file(image), read_file(label), image, label)

    def files(self) -> tuple[str, ...]:
        """All files that it reads."""
        return self.images + self.labels


def check_sizes(files: Encoded, image: np.ndarray, label: np.ndarray) -> None:
    """Checks that the image and label decoded from `files` have the same size.

    Raises:
      UserError: they do not.
    """
    if image.shape[:2] == label.shape[:2]:
        return
    name, remedy = files.image_name, "give every label the size of its image"
    if decode.is_turned(files.image):
        name += ", turned by its EXIF orientation"
        remedy += " and turn it likewise, or save the image without that tag"
    raise UserError(
        f"{files.label_name}: label of {label.shape[1]}x{label.shape[0]} pixels for an "
        f"image of {image.shape[1]}x{image.shape[0]} ({name}); {remedy}."
    )


def read_file(path: str) -> bytes:
    """The file's bytes; `UserError` if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


class LabelTable:
    """Maps stored label values to class indices by a table of 256 entries.

    Args:
      classes: stored value (or values) of each class, in label order.
      ignore: stored values that become 255; 255 itself always does.
      what: the data set in words, for error messages.
    """

    UNKNOWN = 254

    def __init__(self, classes: Sequence[int | Sequence[int]], ignore: Sequence[int], what: str):
        if len(classes) > self.UNKNOWN:
            raise UserError(f"{what}: at most {self.UNKNOWN} classes fit a label.")
        self.table = np.full(256, self.UNKNOWN, np.uint8)
        self.table[list(ignore)] = IGNORE_LABEL
        self.table[IGNORE_LABEL] = IGNORE_LABEL
        for index, values in enumerate(classes):
            self.table[values if isinstance(values, int) else list(values)] = index
        self.what = what

    def __call__(self, stored: np.ndarray, name: str) -> UInt8[np.ndarray, "h w"]:
        if stored.ndim != 2:
            raise UserError(
                f"{name}: a colour picture where an index label is expected ({self.what}); store "
                "one class number per pixel in an 8-bit grey or palette PNG."
            )
        label = cv2.LUT(stored, self.table)
        if (label == self.UNKNOWN).any():
            unknown = np.unique(stored[label == self.UNKNOWN])
            raise UserError(
                f"{name}: label value {', '.join(map(str, unknown[:8]))} is not a class of "
                f"{self.what}; correct the label, or the list of classes."
            )
        return label
