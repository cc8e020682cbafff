"""Finds, loads and compares experiment files, and stores configurations as JSON."""

import copy
import difflib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fastfcn_jax import stored
from fastfcn_jax.config import base, schema
from fastfcn_jax.errors import UserError

# The published configurations: inside the package in a wheel, beside it in a checkout.
FOLDERS = tuple(parent / "configs" for parent in Path(__file__).parents[1:3])
EMPTY = {"scaling": [[float]]}  # forms of tuples that are empty by default
PATHS = (
    *(("data", "root"), ("data", "cache"), ("init", "checkpoint"), ("init", "backbone")),
    ("train", "local_checkpoints"),
)
# Keys of `data` that may differ between hosts; the data read are compared instead.
PER_HOST = ("root", "cache", "threads", "workers", "prefetch")
# Keys of `model` that folders written by 0.1.0 lack; their models are those of the defaults.
_LATER = ("stem", "average_downsample", "lateral", "threshold")


def load(spec: str) -> ConfigDict:
    """Loads `FILE.py[:variant]` or a published configuration `NAME[:variant]`.

    Raises:
      UserError: the file is missing or fails to run, or there is no such variant.
    """
    name, _, variant = spec.partition(":")
    path = find(name)
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
        words = in_words(error)
        raise UserError(f"{spec}: the configuration cannot be built: {words}") from error
    expand_home(config)
    schema.check(config)
    return config


def find(name: str) -> Path:
    """The file at a path, or the file of a published configuration given by its bare name.

    Raises:
      UserError: there is no such file.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    published = _published()
    if (stem := name.removesuffix(".py")) in published:
        return published[stem]
    near = difflib.get_close_matches(path.stem, published, 3)
    meant = f"did you mean {' or '.join(near)}?" if near else "`fastfcn config list` names them."
    raise UserError(f"{name}: no such configuration file; {meant}")


def expand_home(config: ConfigDict) -> None:
    """Expands `~` in the paths; a shell does not do so after `=` on a command line."""
    for section, key in PATHS:
        config[section][key] = os.path.expanduser(config[section][key])


def names() -> list[str]:
    """The bare names of the published configurations."""
    return sorted(_published())


def _published() -> dict[str, Path]:
    return {file.stem: file for folder in FOLDERS for file in folder.glob("[a-z]*.py")}


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


def to_json(config: ConfigDict) -> dict:
    """Returns plain nested dicts that `json` can write (tuples as lists)."""
    return json.loads(json.dumps(config.to_dict()))


def without_paths(content: dict) -> dict:
    """`to_json`'s result for publication: the paths, which are private to a machine, are empty."""
    result = copy.deepcopy(content)
    for section, key in PATHS:
        result[section][key] = ""
    return result


def from_json(content: Any, file: Path | None = None) -> ConfigDict:
    """Rebuilds a configuration from `to_json`'s result.

    Missing keys get their defaults, except that those of `model` are required, but for later ones.

    Args:
      file: file that `content` was read from, for error messages.

    Raises:
      UserError: a key is unknown or missing, or its value has the wrong type or is not allowed, for
        example because another version wrote the file.
    """
    config = base.get_config()
    where = f"{file}: " if file else ""
    if wrong := stored.fault(content, _form(config), "config") or _unknown(config, content):
        raise UserError(f"{where}{wrong}; fix it, or create the file again.")
    _update(config, content)
    try:
        schema.check(config)
    except UserError as error:
        raise UserError(f"{where}{error}") from error
    return config


def _form(config: ConfigDict, *, whole: bool = False) -> dict[str, Any]:
    """The form of `to_json(config)`, as `stored.fault` takes it; `whole`: all keys are required."""
    form = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            form[f"{key}?" if key != "model" else key] = _form(value, whole=key == "model")
        elif isinstance(value, tuple):
            form[f"{key}?"] = [type(value[0])] if value else EMPTY.get(key, [(str, float)])
        else:
            form[key if whole and key not in _LATER else f"{key}?"] = type(value)
    return form


def _unknown(config: ConfigDict, content: dict, path: str = "config") -> str:
    for key, value in content.items():
        if key not in config:
            return f"{path}.{key} is unknown to this version"
        if isinstance(value, dict) and (found := _unknown(config[key], value, f"{path}.{key}")):
            return found
    return ""


def _update(config: ConfigDict, content: dict) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _update(config[key], value)
        else:
            config[key] = tupled(value)


def tupled(value: Any) -> Any:
    """Lists, and those within lists, as tuples."""
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def differences(first: ConfigDict, second: ConfigDict) -> list[tuple[str, object, object]]:
    """Lists (key, value in first, value in second) for each key that differs."""
    other = dict(schema.flatten(second))
    return [(key, value, other[key]) for key, value in schema.flatten(first) if value != other[key]]


def in_words(error: Exception) -> str:
    """Makes an ml_collections error readable: its text is a nested repr that lists all keys."""
    words = re.sub(r"(?:\\+n|\s)+", " ", str(error)).replace("\\", "")
    words = re.sub(r'Other fields present: "?{.*}"? ?', "", words)
    while quoted := re.fullmatch(r"""(['"])(.*)\1""", words):
        words = quoted[2].strip()
    return words
