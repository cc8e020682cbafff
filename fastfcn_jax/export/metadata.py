"""Writes and reads an exported file's metadata; reading refuses anything invalid."""

import json
from typing import Any

import numpy as np

from fastfcn_jax import __version__
from fastfcn_jax.config import base, experiment, schema
from fastfcn_jax.config.schema import CHOICES
from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import DatasetInfo, stored_values
from fastfcn_jax.errors import UserError

MAX_BYTES = 1 << 20  # 150 classes with the whole configuration take 10 KiB
MAX_PIXELS = 1 << 26  # of the program's input: 8192x8192
MAX_NAME = 200  # characters
PRECISIONS = ("float32", "float16", "bf16", "int8")
FREE = "free"  # in the place of a size: the program takes images of any
MAX_CLASSES = 255  # labels are bytes, and one value is the ignored one


def write(
    card: dict[str, Any],
    size: tuple[int, int] | None,
    check: dict[str, Any],
    *,
    licence: str | None = None,
    precision: str = "float32",
) -> str:
    """The content of `model.json` with the input size and the comparison with the source.

    Args:
      size: (height, width) of the images that the program takes; None: any.
      licence: of the weights; None: not known.
      precision: of the arithmetic; float32 is not mentioned.
    """
    pixel, _ = images(card)
    kind = "RGB images" if pixel == RGB else "images"
    content = {
        **card,
        "size": FREE if size is None else list(size),
        **({} if precision == "float32" else {"precision": precision}),
        "input": f"{kind}, {pixel.dtype}, (batch, height, width, {pixel.channels})",
        "license": licence,
        "producer": f"fastfcn_jax {__version__}",
        "check": check,
    }
    return json.dumps(content)


def properties(text: str, *, normalizes: bool = True) -> dict[str, Any]:
    """What other programs and viewers look for, by name; what is not known is left out.

    Args:
      text: as `write` returns it.
      normalizes: whether the file is a program, which normalises its input itself.
    """
    said = json.loads(text)
    inside = "inside the program: give it the pixels as they are; mean and std are for information"
    found = {
        "names": said["dataset"]["class_names"],
        "palette": said["dataset"]["palette"],
        **said["preprocessing"],
        "normalization": inside if normalizes else "not in the file: (pixels - mean) / std",
        **{key: said.get(key) for key in ("input", "precision", "license", "producer")},
    }
    return {key: value for key, value in found.items() if value is not None}


def described(text: str, *, normalizes: bool = True) -> dict[str, str]:
    """The description whole, and each of its `properties` as JSON."""
    found = properties(text, normalizes=normalizes)
    return {"fastfcn_jax": text, **{name: json.dumps(value) for name, value in found.items()}}


def read(text: str | bytes) -> dict[str, Any]:
    """The content, with valid size, classes, palette and lineage.

    Raises:
      ValueError: what is wrong, as the end of a sentence.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"its description is larger than {MAX_BYTES >> 10} KiB")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("its description is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("its description is not a dictionary")
    size(content)
    test_scale(content)
    info(content)
    images(content)
    threshold(content)
    precision(content)
    if _in(content, "config", "model", "lineage") not in CHOICES["model.lineage"]:
        raise ValueError("its description names no known lineage")
    return content


def info(content: dict[str, Any]) -> DatasetInfo:
    """Name, classes and palette of the data set.

    Raises:
      ValueError: as `read`.
    """
    names, palette = (_in(content, "dataset", key) for key in ("class_names", "palette"))
    title = _in(content, "dataset", "name")
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"its description has no list of 1 to {MAX_CLASSES} classes")
    if not all(map(_is_name, [title, *names])):
        raise ValueError("its description has names that are not printable, or too long")
    is_palette = isinstance(palette, list) and len(palette) == len(names)
    if not is_palette or not all(map(_is_color, palette)):
        raise ValueError("its palette does not have one colour of three bytes for each class")
    values = _in(content, "dataset", "values")
    is_known = isinstance(values, list) and len(values) == len(names)
    if values is not None and not (is_known and all(_is_byte(v) or _is_color(v) for v in values)):
        raise ValueError("its description does not have one stored value for each class")
    return DatasetInfo(title, tuple(names), np.array(palette, np.uint8), stored_values(values))


def images(content: dict[str, Any]) -> tuple[PixelType, tuple[float, ...]]:
    """Type of the images that the program takes, and the mean of each channel; (): ImageNet's.

    Raises:
      ValueError: as `read`.
    """
    data, config = _in(content, "config", "data"), base.get_config().data
    given = data if isinstance(data, dict) else {}
    try:
        for key in ("channels", "dtype", "scaling"):
            if key in given:  # files from before have none of them
                config[key] = experiment.tupled(given[key])
        schema.check_images(config)
    except (UserError, TypeError, OverflowError) as error:
        raise ValueError("its description has no valid kind of images") from error
    return pixel_type.of(config), tuple(float(mean) for mean, _ in config.scaling)


def threshold(content: dict[str, Any]) -> float | None:
    """The probability above which a pixel is of the second class; None: not a one-channel model.

    Raises:
      ValueError: as `read`.
    """
    if _in(content, "config", "model", "num_classes") != 1:
        return None
    found = _in(content, "config", "model", "threshold")
    if not isinstance(found, float) or not 0.0 <= found < 1.0:
        raise ValueError("its description has no threshold from 0 to below 1")
    return found


def size(content: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the images that the program takes; None: any.

    Raises:
      ValueError: as `read`.
    """
    if content.get("size") == FREE:
        return None
    height, width = _two_numbers(content.get("size"), "size")
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"its size is not one of 1 to {MAX_PIXELS} pixels")
    return height, width


def precision(content: dict[str, Any]) -> str:
    """The precision of the program's arithmetic.

    Raises:
      ValueError: as `read`.
    """
    found = content.get("precision", "float32")
    if found not in PRECISIONS:
        raise ValueError(f"its precision is not one of {', '.join(PRECISIONS)}")
    return found


def test_scale(content: dict[str, Any]) -> tuple[int, int]:
    """What photographs are scaled to fit before a program of free size; (0, 0): their own size.

    Raises:
      ValueError: as `read`.
    """
    if size(content) is not None:
        return 0, 0
    width, height = _two_numbers(_in(content, "config", "data", "test_scale"), "test scale")
    if min(width, height) < 0 or width * height > MAX_PIXELS:
        raise ValueError(f"its test scale is not one of 0 to {MAX_PIXELS} pixels")
    return width, height


def _two_numbers(found: Any, what: str) -> tuple[int, int]:
    if not isinstance(found, list) or len(found) != 2 or not all(type(n) is int for n in found):
        raise ValueError(f"its description has no {what} of two whole numbers")
    return found[0], found[1]


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME and name.isprintable()


def _is_color(color: Any) -> bool:
    if not isinstance(color, list) or len(color) != 3:
        return False
    return all(map(_is_byte, color))


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _in(content: Any, *keys: str) -> Any:
    """The value under these nested keys; None if one is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
