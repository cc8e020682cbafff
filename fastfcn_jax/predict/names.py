"""Refuses, before anything is written, results that would replace each other or an input."""

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np

from fastfcn_jax import text
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict.settings import Settings


def refuse_clash(folder: PurePath, names: Sequence[str], settings: Settings) -> None:
    """Raises UserError if results of two files of one folder would have the same name.

    Only hashes of all results' names are kept: eight bytes each, whatever the folder holds.
    """
    if settings.keep_suffix:  # the suffix tells every result's input
        return

    def results(name: str) -> list[str]:
        stem = settings.stem(name)
        return [stem, *(stem + mark for mark in settings.marks)]

    codes = np.fromiter((hash(r) for name in names for r in results(name)), np.int64)
    codes.sort()
    twice = set(codes[1:][codes[1:] == codes[:-1]].tolist())
    owners: dict[str, str] = {}
    for name in names if twice else ():
        for result in results(name):
            first = owners.setdefault(result, name) if hash(result) in twice else name
            if first != name:
                raise UserError(
                    f"{text.shown(folder / first)} and {text.shown(name)} would both give "
                    f"{text.shown(result)}.png; --keep-suffix keeps the suffixes in the results' "
                    f"names ({text.shown(name)}.png), or rename one of the files."
                )


def refuse_to_overwrite(photographs: Iterable, output: Path, settings: Settings) -> None:
    """Raises UserError if a result would replace one of the photographs.

    Args:
      photographs: `inputs.Found`; it is gone through twice if some lie below `output`.
    """
    if not output.exists():
        return
    inside = os.path.join(os.path.realpath(output), "")
    places = (_real(p.path) for p in photographs if p.path is not None)
    originals = {place for place in places if place.startswith(inside)}
    for photograph in photographs if originals else ():
        for ending in settings.endings(photograph.path):
            target = f"{output / photograph.stem}{ending}"
            if os.path.realpath(target) in originals:
                raise UserError(
                    f"--output {output}: {target} is among --input and would be overwritten; "
                    "give another folder."
                )


def _real(path: Path) -> str:
    place = f"{_real_folder(path.parent)}/{path.name}"
    return os.path.realpath(place) if os.path.islink(place) else place


@functools.lru_cache(maxsize=64)
def _real_folder(folder: Path) -> str:
    return os.path.realpath(folder).rstrip("/")
