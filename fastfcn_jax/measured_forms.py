"""forms.json: which operations `fastfcn bench --tune` found faster plain on this kind of device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from fastfcn_jax import files, stored
from fastfcn_jax.config import schema
from fastfcn_jax.errors import UserError

COMMAND = "`fastfcn bench --tune --config NAME`"


class Choice(NamedTuple):
    """What `config.model.forms` stands for here.

    forms: a value of that key other than "auto".
    note: one sentence for the user: which forms, and why.
    file: the measurement on this device, also if it is broken; None without one, or if the key is
      not "auto".
    """

    forms: str
    note: str
    file: Path | None = None


def place(precision: str) -> Path:
    """The forms.json of this kind of device, this version of jax and this `model.precision`."""
    device = files.name_of(_device().replace(" ", "_"))
    return (
        files.cache_folder() / "forms" / device / f"jax-{jax.__version__}" / precision
    ) / "forms.json"


def chosen(model: ConfigDict) -> Choice:
    """Decides for `config.model`: what was measured on this device, else the shipped table.

    A broken file is named in the note and not used.
    """
    if model.forms != "auto":
        return Choice(model.forms, f"forms: {model.forms}, as config.model.forms says")
    path = place(model.precision)
    if not path.exists():
        return Choice(
            "fast",
            f"forms: those of the package; on this {_device()} nobody has measured them with jax "
            f"{jax.__version__} in {model.precision}, which {COMMAND} does",
        )
    try:
        plain = stored.read(path, {"plain": [_operation]}, "the package's forms are taken")["plain"]
    except UserError as error:
        words = str(error).removesuffix(".")
        return Choice("fast", f"forms: {words}; write it again by {COMMAND}, or remove it", path)
    forms = in_words(plain)
    return Choice(
        forms,
        f"forms: {forms}, as measured on this {_device()} ({path}); a training with "
        "--config.model.forms=fast, and all else without this file, takes those of the package",
        path,
    )


def resolved(config: ConfigDict) -> tuple[ConfigDict, Choice]:
    """Returns a copy of an experiment whose `model.forms` is not "auto"."""
    choice = chosen(config.model)
    config = config.copy_and_resolve_references()
    config.model.forms = choice.forms
    return config, choice


def in_words(plain: list[str]) -> str:
    """The value of `config.model.forms` that takes these operations plain and the others fast."""
    ordered = [name for name in schema.OPERATIONS if name in plain]
    return f"fast without {', '.join(ordered)}" if ordered else "fast"


def write(precision: str, found: Mapping[str, Any]) -> Path:
    """Writes the measurement, which has a list "plain", whole or not at all.

    Raises:
      UserError: the folder cannot be written.
    """
    path = place(precision)
    files.make_cached(path.parent)
    files.write_json(path, found)
    return path


def _device() -> str:
    return jax.local_devices()[0].device_kind


def _operation(name: Any) -> str:
    return "" if name in schema.OPERATIONS else "is no operation of this version"
