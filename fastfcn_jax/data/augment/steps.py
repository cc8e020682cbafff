"""Composes the steps of `config.data.augment` into one augmentation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.config import augment_steps
from fastfcn_jax.config.augment_steps import Step
from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.augment import crop_first, geometric, mmseg, mosaic, official, pixel_values
from fastfcn_jax.data.augment.device_draws import DeviceDraws
from fastfcn_jax.data.augment.mmseg import Augmented, Draws, Image, Label
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError

Function = Callable[..., tuple[Any, Any]]  # (image, label, rng) -> (image, label)

# The steps whose options are those of their function; "label" is its argument `fill`.
_FUNCTIONS: dict[str, Function] = {
    "rotate": geometric.rotate,
    "rot90": geometric.rot90,
    "scale_steps": geometric.scale_steps,
    "cutout": geometric.cutout,
    "erase": geometric.erase,
    "clahe": pixel_values.clahe,
    "gamma": pixel_values.gamma,
    "blur": pixel_values.blur,
    "jpeg": pixel_values.jpeg,
}


def build(data: ConfigDict, source: Source | None) -> Callable[..., Augmented]:
    """The augmentation (image, label, rng) of `data.augment`; steps left out are in `left_out`.

    Without the steps of the device, if there are any.

    Args:
      source: what a mosaic takes its other images from.

    Raises:
      UserError: a step is unknown, does not take such images, or needs a source.
    """
    chosen, together = _kept(data), ("resize", "crop", "flip")
    if data.device_augmentation:
        (chosen, _), together = augment_steps.split(chosen), ("resize", "crop")
    functions = [_function(step, data, source) for step in chosen]
    if data.crop_first:
        cropped = chosen[: len(together)]
        if tuple(step.name for step in cropped) != together or any(
            step.options.get("directions", ("horizontal",)) != ("horizontal",) for step in cropped
        ):
            raise UserError(
                f"data.crop_first: only an augmentation that begins with {', '.join(together)} can "
                "crop first; set False."
            )
        functions[: len(together)] = [partial(crop_first.resize_crop_flip, **_mmseg_settings(data))]
    return partial(apply, functions=tuple(functions), crop_size=tuple(data.crop_size))


def apply(
    image: Image,
    label: Label,
    rng: Draws,
    *,
    functions: Sequence[Function],
    crop_size: tuple[int, int],
) -> Augmented:
    """The steps one after another, then padding to the crop's size."""
    for function in functions:
        image, label = function(image, label, rng)
    return mmseg.pad(image, label, crop_size)


def device_draws(data: ConfigDict) -> DeviceDraws | None:
    """Draws what the device does with a sample; None without `data.device_augmentation`."""
    if not data.device_augmentation:
        return None
    _, names = augment_steps.split(_kept(data))
    return DeviceDraws(data.flip if "flip" in names else None, "photometric" in names)


def device_nothing(data: ConfigDict, count: int) -> dict[str, np.ndarray]:
    """What `device_draws` adds to a batch of `count` samples, for samples that stay as they are."""
    draws = device_draws(data)
    return draws.nothing(count) if draws is not None else {}


def left_out(data: ConfigDict) -> tuple[str, ...]:
    """The steps of `data.augment` that images other than 8-bit RGB do not get."""
    if pixel_type.of(data) == RGB:
        return ()
    names = [step.name for step in augment_steps.parse(data.augment)]
    return tuple(name for name in names if name in augment_steps.COLORS)


def _kept(data: ConfigDict) -> Sequence[Step]:
    pixel = pixel_type.of(data)
    chosen = augment_steps.parse(data.augment or ("mmseg",))
    pillow = [step.name for step in chosen if step.name in augment_steps.PILLOW]
    if pillow and pixel != RGB:
        raise UserError(
            f"data.augment: {pillow[0]!r} takes 8-bit RGB alone, as Pillow does; the images have "
            f"{pixel}."
        )
    return augment_steps.kept(chosen, data)


def _mmseg_settings(data: ConfigDict) -> dict[str, Any]:
    return {
        "crop_size": tuple(data.crop_size),
        "resize_scale": tuple(data.resize_scale),
        "ratio_range": tuple(data.ratio_range),
        "cat_max_ratio": data.cat_max_ratio,
        "flip": None if data.device_augmentation else data.flip,
    }


def _function(step: Step, data: ConfigDict, source: Source | None) -> Function:
    """The function of one step, with the settings of its options and of `data`."""
    name, options = step.name, step.options
    crop_size, scale = tuple(data.crop_size), tuple(data.resize_scale)
    settings: dict[str, tuple[Function, dict[str, Any]]] = {
        "resize": (mmseg.random_resize, {"scale": scale, "ratio_range": tuple(data.ratio_range)}),
        "crop": (
            mmseg.random_crop,
            {"crop_size": crop_size, "cat_max_ratio": data.cat_max_ratio},
        ),
        "flip": (geometric.flip, {"prob": data.flip}),
        "photometric": (mmseg.distort, {}),
        "resize_steps": (geometric.resize_steps, {"scale": scale}),
        "short_side": (official.short_side, {"base_size": data.base_size}),
        "rotate_pillow": (
            official.rotate,
            {"rotation": data.rotation, "padding_label": data.padding_label},
        ),
        "pad_crop": (
            official.pad_crop,
            {"crop_size": crop_size, "padding_label": data.padding_label},
        ),
        "blur_pillow": (official.blur, {}),
    }
    if name == "mosaic":
        if source is None:
            raise UserError("data.augment: 'mosaic' needs a data set to take other images from.")
        size = options["size"] if all(options["size"]) else crop_size
        return partial(mosaic.mosaic, source=source, **(options | {"size": size}))
    if name in settings:
        function, keys = settings[name]
        return partial(function, **keys, **options)
    renamed = {"fill" if key == "label" else key: value for key, value in options.items()}
    return partial(_FUNCTIONS[name], **renamed)
