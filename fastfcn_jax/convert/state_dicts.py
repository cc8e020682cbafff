"""Finds the weights in a file's contents: under which keys, with which prefix, averaged or not."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastfcn_jax.convert.inert_pickle import MAX_NAME, printable

# Every ResNet has this entry exactly once; what precedes it is the prefix of the whole model.
_ANCHOR = re.compile(r"((?:\w+\.)*?)(?:(?:backbone|pretrained)\.)?layer1\.0\.conv1\.weight")
_AVERAGED = re.compile(r"ema|averag|teacher|swa", re.IGNORECASE)
_DEPTH = 3  # levels of nested dictionaries to search


class NoWeightsError(Exception):
    """Why a file gives no weights, as the end of a sentence."""


class Found(NamedTuple):
    """The state dict that was chosen.

    Attributes:
      entries: its entries, prefix removed from their names; not all need be tensors.
      keys: where it was in the file, e.g. "model.state_dict"; "" for the top level.
      prefix: the removed prefix, e.g. "module._orig_mod.".
      outside: entries without the prefix, not part of the model (`n_averaged`, a loss's weights).
      averaged: whether these are averaged weights (EMA, SWA).
      others: the state dicts that were not chosen, in words.
    """

    entries: dict[str, Any]
    keys: str
    prefix: str
    outside: tuple[str, ...]
    averaged: bool
    others: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"under {self.keys!r}" if self.keys else "at the file's top"]
        parts += [f"prefix {self.prefix!r} removed"] if self.prefix else []
        parts += ["averaged"] if self.averaged else []
        parts += [f"{' and '.join(self.others)} left aside"] if self.others else []
        return ", ".join(parts)


class _Place(NamedTuple):
    """One ResNet in the file: the dictionary that contains it, its keys there, its prefix."""

    entries: dict[str, Any]
    keys: str
    prefix: str
    averaged: bool

    def __str__(self) -> str:
        return repr(".".join(part for part in (self.keys, self.prefix.rstrip(".")) if part))


def find(top: dict, is_tensor: Callable[[Any], bool], weights: str | None = None) -> Found:
    """Finds the one model in a file's nested dictionaries, whatever its keys are called.

    Args:
      weights: "ema" or "model", if the file has both; None: the averaged ones, which is what a
        training run with averaging evaluates.

    Raises:
      NoWeightsError: there are none, or several that `weights` does not distinguish.
    """
    places = list(_places(top, is_tensor, "", 0, set()))
    if {"state_dict", "ema_state_dict"} <= top.keys() and "message_hub" in top:
        # mmengine swaps the two when saving, so `state_dict` has the averaged weights.
        places = [place._replace(averaged=not place.averaged) for place in places]
    if not places:
        return _without_resnet(top, is_tensor, weights)
    kinds = {place.averaged for place in places}
    if weights is not None and (weights == "ema") not in kinds:
        held = ", ".join(map(str, places))
        raise NoWeightsError(f"it holds no {_word(weights == 'ema')} weights, only {held}")
    averaged = weights == "ema" if weights else True in kinds
    chosen = [place for place in places if place.averaged == averaged]
    if len(chosen) > 1:
        listed = ", ".join(map(str, chosen))
        raise NoWeightsError(f"it holds {len(chosen)} models, not one: {listed}; save one alone")
    place = chosen[0]
    inside = {n: v for n, v in place.entries.items() if n.startswith(place.prefix)}
    return Found(
        {name.removeprefix(place.prefix): value for name, value in inside.items()},
        place.keys,
        place.prefix,
        tuple(name for name in place.entries if name not in inside),
        averaged,
        tuple(str(other) for other in places if other is not place),
    )


def _places(top: dict, is_tensor, keys: str, depth: int, visited: set[int]) -> Iterator[_Place]:
    visited.add(id(top))  # a dictionary in a file may contain itself
    for key, value in top.items():
        if not isinstance(key, str) or len(key) > MAX_NAME:
            continue
        if isinstance(value, dict):
            if depth < _DEPTH and id(value) not in visited:
                below = f"{keys}.{key}" if keys else key
                yield from _places(value, is_tensor, below, depth + 1, visited)
        elif is_tensor(value) and (anchor := _ANCHOR.fullmatch(key)):
            refuse_other_keys(top)
            averaged = any(map(_AVERAGED.search, (keys, anchor[1]))) or "n_averaged" in top
            yield _Place(top, keys, anchor[1], averaged)


def _without_resnet(top: dict, is_tensor, weights: str | None) -> Found:
    """The first dictionary that contains tensors; a later error message lists its names."""
    for keys in ("", "state_dict", "model", "model_state_dict", "net", "weights"):
        entries = top.get(keys) if keys else top
        if isinstance(entries, dict) and any(map(is_tensor, entries.values())):
            refuse_other_keys(entries)
            prefix = ""
            while all(name.startswith(f"{prefix}module.") for name in entries):
                prefix += "module."
            own = {name.removeprefix(prefix): value for name, value in entries.items()}
            return Found(own, keys, prefix, (), False, ())
    raise NoWeightsError(f"it holds no weights; {seen(top)}")


def seen(top: dict) -> str:
    """The first keys of a file, for a message."""
    keys = [printable(str(key)[:40]) for key in list(top)[:12]]
    more = f" and {len(top) - len(keys)} more" if len(top) > len(keys) else ""
    return f"its keys are: {', '.join(keys)}{more}" if keys else "it is an empty dictionary"


def refuse_other_keys(entries: dict) -> None:
    """Raises `NoWeightsError` for names that are not short, printable strings."""
    if not all(isinstance(name, str) for name in entries):
        raise NoWeightsError("its weights are not named by strings")
    # Removing prefixes one by one would take time quadratic in a name's length.
    if not all(len(name) <= MAX_NAME and name.isprintable() for name in entries):
        raise NoWeightsError("its weights have names that are not printable or too long")


def _word(averaged: bool) -> str:
    return "averaged" if averaged else "trained"
