"""Experiment files: loading, checking, storing; and the command about them.

python -m fastfcn_jax.config show configs/jpu_psp_cityscapes.py:4x4
python -m fastfcn_jax.config diff configs/jpu_psp_ade20k.py configs/jpu_enc_ade20k.py:160k
python -m fastfcn_jax.config document | complete bash|zsh
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fastfcn_jax import base_config, cli
from fastfcn_jax.errors import UserError

CHOICES = {
    "model.lineage": ("mmseg", "official"),
    "model.backbone": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "model.output_stride": (8, 32),
    "model.neck": ("jpu", "jpu_x", "none"),
    "model.head": ("psp", "aspp", "enc", "fcn"),
    "model.precision": ("float32", "bfloat16"),
    "model.forms": ("fast", "plain"),
    "data.augmentation": ("mmseg", "official"),
    "loss.normalization": ("all_pixels", "valid_pixels", "valid_pixels_per_shard"),
    "optim.freeze": ("backbone", "bn"),
    "train.on_nonfinite": ("stop", "skip"),
    "train.strategy": ("auto", "pmap", "jit"),
    "eval.protocol": ("single", "ms_flip", "ms_flip_0x", "slide", "official", "official_ms"),
}
AT_LEAST = {
    "seed": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "eval.batch_size": 1,
    "data.threads": 1,
    "data.workers": 0,
    "data.flip": 0.0,
    "loss.ohem_min_kept": 0,
    "optim.lr": 0.0,
    "optim.warmup_steps": 0,
    "model.dropout": 0.0,
    "optim.momentum": 0.0,
    "train.ema_decay": 0.0,
}
# (height, width) or (width, height).
SIZES = (
    "data.crop_size",
    "data.resize_scale",
    "data.test_scale",
    "eval.crop_size",
    "eval.stride",
)
BELOW = {"seed": 2**32, "model.dropout": 1.0, "optim.momentum": 1.0, "train.ema_decay": 1.0}


def load(spec: str) -> ConfigDict:
    """Loads `FILE.py[:variant]`; the name alone finds a file of `configs/` that was installed.

    Raises:
      UserError: the file is missing, fails to run, or does not know the variant.
    """
    name, _, variant = spec.partition(":")
    path = _find(name)
    try:
        module_spec = importlib.util.spec_from_file_location(path.stem, path)
        if module_spec is None or module_spec.loader is None:
            raise UserError(f"{spec}: not a Python file.")
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
    except UserError:
        raise
    except Exception as error:
        words = cli.in_words(error)
        raise UserError(f"{spec}: the configuration cannot be built: {words}") from error
    check(config)
    return config


def from_flag(name: str = "config") -> tuple[ConfigDict, str]:
    """Returns the checked configuration behind an absl config flag, and its "FILE[:variant]".

    Raises:
      UserError: the file is missing, or `check` finds a bad value.
    """
    flag = flags.FLAGS[name]
    spec = config_flags.get_config_filename(flag)
    if not Path(spec.partition(":")[0]).is_file():  # ml_collections fails only at first use
        raise UserError(f"{spec}: no such configuration file; see configs/ for those that exist.")
    config: Any = flag.value
    check(config)
    return config, spec


def _find(name: str) -> Path:
    installed = Path(__file__).parent / "configs"
    candidates = [Path(name), installed / name, installed / f"{name}.py"]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"{name}: no such configuration file; see configs/ for those that exist.")


def apply_variant(
    config: ConfigDict, variant: str, variants: dict[str, dict[str, object]]
) -> ConfigDict:
    """Assigns `variants[variant]` (flat "section.key" names) and returns the configuration.

    Raises:
      UserError: no such variant; the message lists those that exist.
    """
    if variant and variant not in variants:
        known = ", ".join(f":{name}" for name in sorted(variants)) or "none"
        raise UserError(f"no variant ':{variant}'; known variants: {known}")
    config.update_from_flattened_dict(variants.get(variant, {}))
    return config


def check(config: ConfigDict) -> None:
    """Raises UserError for a value that is none of its key's choices or makes no sense."""
    values = dict(flatten(config))
    for key, choices in CHOICES.items():
        given = values[key] if isinstance(values[key], tuple) else (values[key],)
        if not set(given) <= set(choices):
            listed = ", ".join(map(str, choices))
            raise UserError(f"config.{key}={values[key]!r} is not one of: {listed}.")
    for key, least in AT_LEAST.items():
        if not values[key] >= least:
            raise UserError(f"config.{key}={values[key]} must be at least {least}.")
    for key, limit in BELOW.items():
        if not values[key] < limit:
            raise UserError(f"config.{key}={values[key]} must be below {limit}.")
    for key in SIZES:
        size = values[key]
        as_it_is = key == "data.test_scale" and size == (0, 0)
        whole = len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
        if not whole and not as_it_is:
            raise UserError(f"config.{key}={size} must be two whole numbers above 0.")
    ratios = values["data.ratio_range"]
    if len(ratios) != 2 or not 0.0 < ratios[0] <= ratios[1]:
        raise UserError(f"config.data.ratio_range={ratios} must be (least, largest), above 0.")
    check_model(config.model)


def check_model(model: ConfigDict) -> None:
    """Raises UserError for a combination of `config.model`'s values that no reference has."""
    if (model.neck == "none") != (model.output_stride == 8):
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
    if model.se_branch and model.head != "enc":
        raise UserError("config.model.se_branch needs config.model.head='enc'.")


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf as ("section.key", value), in the order of the base configuration."""
    for key, value in config.items(preserve_field_references=False):
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def to_json(config: ConfigDict) -> dict:
    """Returns plain nested dicts that `json` can write (tuples as lists)."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(stored: dict) -> ConfigDict:
    """Rebuilds a configuration from `to_json`'s result.

    Raises:
      UserError: a stored key is unknown here, so the file is of another version.
    """
    config = base_config.get_config()
    _update(config, stored, "config")
    check(config)
    return config


def _update(config: ConfigDict, stored: dict, path: str) -> None:
    for key, value in stored.items():
        if key not in config:
            raise UserError(f"{path}.{key} is unknown to this version; remove it from the file.")
        if isinstance(value, dict):
            _update(config[key], value, f"{path}.{key}")
        else:
            config[key] = tuple(value) if isinstance(value, list) else value


def differences(first: ConfigDict, second: ConfigDict) -> list[tuple[str, object, object]]:
    """Lists (key, value in first, value in second) for every key that differs."""
    other = dict(flatten(second))
    return [(key, value, other[key]) for key, value in flatten(first) if value != other[key]]


def main(arguments: list[str]) -> None:
    match arguments:
        case ["show", spec]:
            for key, value in flatten(load(spec)):
                print(f"{key} = {value!r}")
        case ["diff", first, second]:
            for key, left, right in differences(load(first), load(second)):
                print(f"{key}: {left!r} -> {right!r}")
        case ["document"]:
            from fastfcn_jax import config_page

            print(config_page.page(), end="")
        case ["complete", "bash" | "zsh" as shell]:
            from fastfcn_jax import completion

            print(completion.script(shell))
        case _:
            raise UserError(
                "usage: python -m fastfcn_jax.config "
                "show FILE | diff FILE FILE | document | complete bash|zsh"
            )


if __name__ == "__main__":
    cli.run(main)
