"""The steps of `config.data.augment`: their names, their options, and how they are written."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fastfcn_jax.errors import UserError

# The augmentations of mmsegmentation and of the official code; an entry may name one of them.
NAMED = {
    "mmseg": ("resize", "crop", "flip", "photometric"),
    "official": ("flip", "short_side", "rotate_pillow", "pad_crop", "blur_pillow"),
}
# Options and their defaults, which are mmsegmentation's where it has any. Those of `resize`, `crop`
# and the official steps are keys of `config.data`. From a pair a value in between is drawn.
OPTIONS: dict[str, dict[str, Any]] = {
    "resize": {},
    "resize_steps": {"factors": (0.5, 2.0), "step": 0.25},
    "scale_steps": {"factors": (0.5, 2.0), "step": 0.25},
    "mosaic": {"prob": 0.5, "size": (0, 0), "center": (0.5, 1.5)},
    "rot90": {"prob": 0.5},
    "short_side": {},
    "crop": {},
    "pad_crop": {},
    "flip": {"directions": ("horizontal",)},
    "rotate": {"prob": 0.5, "degrees": 10.0, "label": 255},
    "rotate_pillow": {},
    "cutout": {"prob": 0.5, "holes": (1, 1), "size": (0.1, 0.1), "label": -1},
    "erase": {"prob": 0.5, "area": (0.02, 0.33), "aspect": (0.3, 3.3), "label": -1},
    "photometric": {},
    "clahe": {"prob": 1.0, "clip": 40.0, "tiles": (8, 8)},
    "gamma": {"prob": 0.5, "range": (0.7, 1.5)},
    "blur": {"prob": 0.5, "sigma": (0.1, 2.0)},
    "blur_pillow": {},
    "jpeg": {"prob": 0.5, "quality": (30, 95)},
}
# They change the image's size, which after the crop is that of the batch.
BEFORE_CROP = ("resize", "resize_steps", "scale_steps", "mosaic", "rot90", "short_side")
CROPS = ("crop", "pad_crop")
COLORS = ("photometric", "clahe", "gamma", "jpeg")  # of 8-bit RGB; left out for other images
PILLOW = ("short_side", "rotate_pillow", "pad_crop", "blur_pillow")  # take 8-bit RGB alone
ON_DEVICE = ("flip", "photometric")  # with `data.device_augmentation`, in this order
DIRECTIONS = ("horizontal", "vertical", "diagonal")
_RANGES = ("factors", "center", "holes", "area", "aspect", "range", "sigma", "quality")
_ABOVE_ZERO = ("factors", "step", "clip", "tiles", "area", "aspect", "range", "sigma")
_HIGHEST = {"prob": 1, "degrees": 180, "size": 2**14, "label": 255, "quality": 100, "area": 1}


class Step(NamedTuple):
    """A step and all its options."""

    name: str
    options: dict[str, Any]


def parse(entries: Sequence[Any]) -> tuple[Step, ...]:
    """`config.data.augment` as steps: "rotate degrees=20" -> rotate with its other defaults.

    Raises:
      UserError: a step or option is unknown, a value is not allowed, or the order does not end in
        an image of the crop's size.
    """
    written = [part for entry in entries for part in NAMED.get(str(entry), (str(entry),))]
    steps = tuple(_step(entry) for entry in written)
    names = [step.name for step in steps]
    crops = [i for i, name in enumerate(names) if name in CROPS]
    if len(crops) != 1:
        raise UserError(
            f"config.data.augment has {len(crops)} of the steps {' and '.join(CROPS)}; give one, "
            "which makes images of data.crop_size."
        )
    late = next((name for name in names[crops[0] :] if name in BEFORE_CROP), None)
    if late is not None:
        raise UserError(
            f"config.data.augment: {late!r} changes the size of an image; put it before "
            f"{names[crops[0]]!r}."
        )
    return steps


def kept(steps: Sequence[Step], data: ConfigDict) -> list[Step]:
    """The steps that the type of the images and the other settings of `config.data` leave."""
    off = set() if (data.channels, data.dtype) == (3, "uint8") else set(COLORS)
    off |= set() if data.photometric else {"photometric"}
    off |= set() if data.blur else {"blur_pillow"}
    off |= set() if data.rotation else {"rotate_pillow"}
    return [step for step in steps if step.name not in off]


def split(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """With `data.device_augmentation`: the steps of the host, and the names of the device's.

    Raises:
      UserError: there is none for the device, or another step would have to follow one of them.
    """
    unmade = "or set data.device_augmentation=False"
    names = [step.name for step in steps]
    first = next((i for i, name in enumerate(names) if name in ON_DEVICE), len(names))
    host, device = tuple(steps[:first]), names[first:]
    if not device:
        raise UserError(
            f"config.data.device_augmentation: neither flip nor photometric is among the steps "
            f"that the other settings leave ({', '.join(names)}); add one, {unmade}."
        )
    for name, before in zip(device[1:], device[:-1], strict=True):
        if (before, name) != ON_DEVICE:
            raise UserError(
                f"config.data.device_augmentation: {name!r} follows {before!r}, and the device "
                f"does a flip, then photometric, and nothing after them; put {name!r} in front of "
                f"them, {unmade}."
            )
    if device[0] == "flip" and steps[first].options["directions"] != ("horizontal",):
        raise UserError(
            "config.data.device_augmentation: the device flips horizontally alone; leave out the "
            f"flip's directions, {unmade}."
        )
    return host, tuple(device)


def _step(entry: str) -> Step:
    name, *options = entry.split()
    if name not in OPTIONS:
        known = ", ".join((*NAMED, *OPTIONS))
        raise UserError(f"config.data.augment: {name!r} is not one of: {known}.")
    found = dict(OPTIONS[name])
    for option in options:
        key, equals, text = option.partition("=")
        if key not in found or not equals:
            known = ", ".join(f"{key}=" for key in found) or "none; its settings are keys of data"
            raise UserError(f"config.data.augment: {entry!r}: the options of {name} are {known}.")
        try:
            found[key] = _value(key, text, OPTIONS[name][key])
        except ValueError as error:
            raise UserError(f"config.data.augment: {entry!r}: {error}.") from error
    return Step(name, found)


def _value(key: str, text: str, default: Any) -> Any:
    """The option's value, of the type of its default; raises ValueError."""
    if key == "directions":
        chosen = tuple(text.split(","))
        if not set(chosen) <= set(DIRECTIONS):
            raise ValueError(f"{key} are some of {','.join(DIRECTIONS)}")
        return chosen
    is_pair = isinstance(default, tuple)
    kind = type(default[0] if is_pair else default)
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    low, high = (-1 if default == -1 else 0), _HIGHEST.get(key, math.inf)
    if key == "size" and kind is float:  # a share of the image, of the mosaic pixels
        high = 1
    in_range = all(low <= value <= high and math.isfinite(value) for value in values)
    if len(values) != 1 + is_pair or not in_range:
        what = f"{'two numbers' if is_pair else 'a number'} from {low}"
        above = "" if high == math.inf else f" to {high}"
        whole = ", whole" if kind is int else ""
        raise ValueError(f"{key} has to be {what}{above}{whole}{', as 1,2' if is_pair else ''}")
    if key in _ABOVE_ZERO and min(values) <= 0:
        raise ValueError(f"{key} has to be above 0")
    if key in _RANGES and values[0] > values[1]:
        raise ValueError(f"{key} has to be low,high")
    return tuple(values) if is_pair else values[0]
