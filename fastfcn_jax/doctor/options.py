"""Choices that a user can make instead of the doctor when a folder is prepared."""

import shlex
from typing import NamedTuple

from fastfcn_jax.doctor.division import SplitBy
from fastfcn_jax.doctor.photo_kind import Channels
from fastfcn_jax.doctor.unify import Palettes


class Options(NamedTuple):
    """The keyword arguments of `adopt.adopt` that control what is read and how."""

    photos: str = ""
    labels: str = ""
    names: str = ""
    split: SplitBy = "auto"
    skip_bad: bool = False
    clean: bool = False
    empty: bool = False
    palettes: Palettes = "auto"
    channels: Channels = "auto"

    def flags(self) -> str:
        """The options that differ from their defaults, as command-line flags."""
        texts = []
        for name, value in self._asdict().items():
            if value != self._field_defaults[name]:
                texts.append(f" --{name}" if value is True else f" --{name} {shlex.quote(value)}")
        return "".join(texts)
