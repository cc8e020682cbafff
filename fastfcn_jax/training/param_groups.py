"""Groups of parameters with a learning rate and weight decay of their own, by name."""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from fastfcn_jax.errors import UserError

Path = tuple[str, ...]
FORM = "'PATTERN lr=FACTOR decay=FACTOR', for example 'backbone/*/bn* lr=0.1 decay=0'"


class Group(NamedTuple):
    """Factors for the parameters whose path matches, e.g. `backbone/layer1_0/conv1/kernel`."""

    pattern: str
    lr: float = 1.0
    decay: float = 1.0


def parse(entries: Sequence[str]) -> tuple[Group, ...]:
    """Reads `config.optim.groups`.

    Raises:
      UserError: an entry has another form.
    """
    return tuple(_group(entry) for entry in entries)


def of(groups: Sequence[Group], path: Path) -> Group:
    """The first group that matches; factors of 1 if none does."""
    name = "/".join(path)
    return next((group for group in groups if fnmatchcase(name, group.pattern)), Group("*"))


def refuse_unmatched(groups: Sequence[Group], paths: Sequence[Path]) -> None:
    """Raises UserError for a pattern that matches no parameter."""
    names = ["/".join(path) for path in paths]
    for group in groups:
        if not any(fnmatchcase(name, group.pattern) for name in names):
            raise UserError(
                f"config.optim.groups: {group.pattern!r} matches no parameter; they are called "
                f"{names[0]}, {names[-1]} and so on."
            )


def _group(entry: str) -> Group:
    pattern, *given = entry.split() or [""]
    try:
        factors = {key: float(value) for key, value in (part.split("=") for part in given)}
        group = Group(pattern, **factors)
        if not given or not all(0.0 <= factor < math.inf for factor in group[1:]):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise UserError(f"config.optim.groups: {entry!r} is not {FORM}.") from error
    return group
