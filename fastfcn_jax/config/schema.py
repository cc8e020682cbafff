"""The allowed values of configuration keys."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from fastfcn_jax.config import augment_steps
from fastfcn_jax.errors import UserError

CHOICES = {
    "model.lineage": ("mmseg", "official", "paddleseg"),
    "model.backbone": (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnext50_32x4d", "wide_resnet50_2"),
    ),
    "model.stem": ("deep", "plain"),
    "model.output_stride": (8, 32),
    "model.neck": ("jpu", "jpu_x", "none"),
    "model.head": ("psp", "aspp", "enc", "fcn"),
    "model.precision": ("float32", "bfloat16"),
    "model.forms": ("auto", "fast", "plain"),
    "data.dtype": ("uint8", "uint16", "float32"),
    "data.augmentation": ("mmseg", "official", "paddleseg"),
    "data.padding_label": (255, 0),
    "loss.normalization": (
        *("all_pixels", "valid_pixels", "valid_pixels_per_shard", "valid_pixels_per_micro_batch"),
    ),
    "optim.name": ("sgd", "adamw", "lamb"),
    "optim.schedule": ("poly", "cos", "step", "one_cycle"),
    "optim.freeze": ("backbone", "bn"),
    "train.on_nonfinite": ("stop", "skip"),
    "train.strategy": ("auto", "pmap", "jit"),
    "eval.protocol": (
        *("single", "flip", "ms_flip", "ms_flip_0x", "slide"),
        *("official", "official_ms", "paddleseg_ms"),
    ),
}
# The rows of models/ops/forms.py.
OPERATIONS = (
    *("1x1", "3x3", "wide 3x3", "dilated 3x3", "wide dilated 3x3"),
    *("far dilated 3x3", "wide far dilated 3x3", "depthwise 3x3", "grouped 3x3"),
    *("pyramid", "batch norm", "batch norm before 1x1", "max pool", "resize", "barrier"),
)
LOSS_TERMS = ("cross_entropy", "dice", "class_dice", "lovasz", "focal", "tversky", "boundary")
AT_LEAST = {
    "seed": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "eval.batch_size": 1,
    "data.threads": 1,
    "data.workers": 0,
    "data.flip": 0.0,
    "data.balance_below": 0.0,
    "loss.ohem_min_kept": 0,
    "loss.label_smoothing": 0.0,
    "loss.focal_gamma": 0.0,
    "loss.focal_alpha": 0.0,
    "loss.tversky_alpha": 0.0,
    "loss.boundary_width": 1,
    "optim.lr": 0.0,
    "optim.warmup_steps": 0,
    "optim.step_every": 0,
    "optim.step_factor": 0.0,
    "optim.eps": 0.0,
    "optim.cycle_start": 0.0,
    "optim.cycle_peak": 0.0,
    "model.dropout": 0.0,
    "optim.momentum": 0.0,
    "train.ema_decay": 0.0,
    "model.base_width": 1,
    "model.neck_channels": 1,
    "model.head_channels": 1,
    "model.auxiliary_channels": 1,
    "model.num_classes": 0,
    "model.threshold": 0.0,
    "train.log_every": 1,
    "train.eval_every": 0,
    "train.save_every": 0,
    "train.local_save_every": 0,
    "train.keep_every": 0,
    "train.early_stop": 0,
    "train.pictures": 0,
    "eval.max_images": 0,
}
# (height, width) or (width, height).
SIZES = (
    "data.crop_size",
    "data.resize_scale",
    "data.test_scale",
    "eval.crop_size",
    "eval.stride",
)
AT_MOST = {"loss.focal_alpha": 1.0, "loss.tversky_alpha": 1.0}
BELOW = {
    "seed": 2**32,
    "model.dropout": 1.0,
    "model.threshold": 1.0,
    "optim.momentum": 1.0,
    "optim.cycle_peak": 1.0,
    "train.ema_decay": 1.0,
    "loss.label_smoothing": 1.0,
}


def check(config: ConfigDict) -> None:
    """Raises UserError for a value that is not allowed for its key."""
    values: dict[str, Any] = dict(flatten(config))
    values["model.forms"], _ = forms(config.model.forms)
    for key, choices in CHOICES.items():
        given = values[key] if isinstance(values[key], tuple) else (values[key],)
        if not set(given) <= set(choices):
            listed = ", ".join(map(str, choices))
            raise UserError(f"config.{key}={values[key]!r} is not one of: {listed}.")
    for key, least in AT_LEAST.items():
        if not values[key] >= least:
            raise UserError(f"config.{key}={values[key]} must be at least {least}.")
    for key, most in AT_MOST.items():
        if not values[key] <= most:
            raise UserError(f"config.{key}={values[key]} must be at most {most}.")
    for key, limit in BELOW.items():
        if not values[key] < limit:
            raise UserError(f"config.{key}={values[key]} must be below {limit}.")
    for key in SIZES:
        size = values[key]
        as_it_is = key == "data.test_scale" and size == (0, 0)
        whole = len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
        if not whole and not as_it_is:
            raise UserError(f"config.{key}={size} must be two whole numbers above 0.")
    betas = values["optim.betas"]
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise UserError(f"config.optim.betas={betas} must be two numbers from 0 to below 1.")
    ratios = values["data.ratio_range"]
    if len(ratios) != 2 or not 0.0 < ratios[0] <= ratios[1]:
        raise UserError(f"config.data.ratio_range={ratios} must be (min, max), above 0.")
    loss_terms(config.loss.terms)
    if config.data.augment:
        augment_steps.parse(config.data.augment)
    if config.data.device_augmentation:
        _check_device_augmentation(config.data)
    if not 0.0 < config.data.ratio_step < math.inf:
        raise UserError(f"config.data.ratio_step={config.data.ratio_step} must be above 0.")
    if config.train.local_save_every and not config.train.local_checkpoints:
        raise UserError(
            f"config.train.local_save_every={config.train.local_save_every} needs "
            "config.train.local_checkpoints, a folder on a disk of this host."
        )
    check_images(config.data)
    check_model(config.model)


def forms(value: str) -> tuple[str, frozenset[str]]:
    """`config.model.forms` as (kind, operations that are plain although the others are fast).

    The kind is "fast" or "plain"; "auto" is "fast" for whoever asks for no measurement.

    Raises:
      UserError: it is neither of these nor "fast without OPERATION, OPERATION".
    """
    kind, without, listed = value.partition(" without ")
    plain = frozenset(name.strip() for name in listed.split(",")) if without else frozenset()
    known = kind == "fast" if without else kind in CHOICES["model.forms"]
    if not known or not plain <= set(OPERATIONS):
        raise UserError(
            f"config.model.forms={value!r} is not one of: {', '.join(CHOICES['model.forms'])}, "
            f"'fast without OPERATION, OPERATION'; operations are {', '.join(OPERATIONS)}."
        )
    return "fast" if kind == "auto" else kind, plain


def loss_terms(terms: Sequence[Any]) -> tuple[tuple[str, float], ...]:
    """`config.loss.terms` as (name, weight): ("cross_entropy", "dice:3") -> 1 and 3.

    Raises:
      UserError: a term is unknown or given twice, a weight is no number above 0, or there is none.
    """
    found: dict[str, float] = {}
    for term in terms:
        name, colon, weight = str(term).partition(":")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            value = math.nan
        if name not in LOSS_TERMS or not 0.0 < value < math.inf:
            raise UserError(
                f"config.loss.terms: {term!r} is not NAME or NAME:WEIGHT with a weight above 0; "
                f"names are {', '.join(LOSS_TERMS)}."
            )
        if name in found:
            raise UserError(f"config.loss.terms has {name} twice; add their weights.")
        found[name] = value
    if not found:
        raise UserError("config.loss.terms is empty; ('cross_entropy',) is the default.")
    return tuple(found.items())


def check_images(data: ConfigDict) -> None:
    """Raises UserError for a kind of images that cannot be read, or that has no scaling."""
    if not 1 <= data.channels <= 16:
        raise UserError(f"config.data.channels={data.channels} must be 1 to 16.")
    if data.dtype not in CHOICES["data.dtype"]:
        raise UserError(f"config.data.dtype={data.dtype!r} is not uint8, uint16 or float32.")
    pairs = data.scaling
    wanted = "a pair (mean, deviation) for each channel, as measured by `fastfcn doctor --folder`"
    if not pairs and (data.channels, data.dtype) != (3, "uint8"):
        raise UserError(
            f"config.data.scaling is empty, which is ImageNet's for 8-bit RGB; with "
            f"config.data.channels={data.channels} and config.data.dtype={data.dtype!r} give "
            f"{wanted}."
        )
    if pairs and not (len(pairs) == data.channels and all(map(_is_scale, pairs))):
        raise UserError(
            f"config.data.scaling={pairs} must be {wanted} (config.data.channels="
            f"{data.channels}), with every deviation above 0."
        )


def _check_device_augmentation(data: ConfigDict) -> None:
    if not data.augment and data.augmentation != "mmseg":
        raise UserError(
            f"config.data.device_augmentation: '{data.augmentation}' is done by the host alone; "
            "set data.augmentation='mmseg', or data.device_augmentation=False."
        )
    steps = augment_steps.parse(data.augment or ("mmseg",))
    augment_steps.split(augment_steps.kept(steps, data))


def _is_scale(pair: Any) -> bool:
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in pair)
    return numbers and all(map(math.isfinite, pair)) and pair[1] > 0


def check_model(model: ConfigDict) -> None:
    """Raises UserError for a combination of `config.model` values that no reference supports."""
    if model.lineage == "paddleseg":
        _check_paddleseg(model)
    elif (model.neck == "none") != (model.output_stride == 8):
        raise UserError(
            f"config.model.neck={model.neck!r} does not go with "
            f"config.model.output_stride={model.output_stride}: "
            "a JPU needs 32, the dilated twin ('none') needs 8."
        )
    official = model.lineage == "official"
    if model.neck == "jpu_x" and not official:
        raise UserError("config.model.neck='jpu_x' needs config.model.lineage='official'.")
    if official and model.backbone in ("resnet18", "resnet34"):
        raise UserError(f"config.model.lineage='official' has no {model.backbone}.")
    if model.backbone == "resnext50_32x4d" and model.base_width % 16:
        raise UserError(
            f"config.model.base_width={model.base_width} does not divide into the 32 groups of "
            "resnext50_32x4d: set a multiple of 16."
        )
    if model.se_branch and model.head != "enc":
        raise UserError("config.model.se_branch needs config.model.head='enc'.")
    if model.lateral and model.head != "enc":
        raise UserError("config.model.lateral needs config.model.head='enc'.")


def _check_paddleseg(model: ConfigDict) -> None:
    """PaddleSeg's FastFCN is one model: output stride 8, with or without JPU, Enc head."""
    for key, values in {
        "output_stride": (8,),
        "neck": ("jpu", "none"),
        "head": ("enc",),
        "backbone": ("resnet50", "resnet101", "resnet152"),
    }.items():
        if model[key] not in values:
            wanted = " or ".join(map(repr, values))
            raise UserError(
                f"config.model.lineage='paddleseg' needs config.model.{key}={wanted}, not "
                f"{model[key]!r}."
            )


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf as ("section.key", value), in the order of the base configuration."""
    for key, value in config.items(preserve_field_references=False):
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
