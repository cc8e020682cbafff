"""Files with the counts of one share of an evaluation, and the whole that they make."""

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastfcn_jax import stored
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import tally
from fastfcn_jax.evaluation.tally import Tally
from fastfcn_jax.files import replacing

PATTERN = "shard-*-of-*.npz"
FORM = {
    "share": [int],
    "facts": {"protocol": str, "classes": [str], "set of images": list},
    "scores": [str],
    "folder": str,
    "step": int,
    "config": dict,
    "palette": [[int]],
    "absent_counts_zero": bool,
}


class Share(NamedTuple):
    """The counts of a share, and everything that is needed to write the scores of the whole.

    about: "share" (index, number of shares), "facts" (see `subject.facts`), "scores" (names of the
      additional ones), "folder" and "step" of the checkpoint, "config", "palette" and
      "absent_counts_zero".
    """

    file: Path
    counted: Tally
    about: dict[str, Any]

    def __str__(self) -> str:
        return "{}/{}".format(*self.about["share"])


def file_name(share: tuple[int, int]) -> str:
    """The name under which a share is stored."""
    return PATTERN.replace("*", "{}").format(*share)


def write(file: Path, counted: Tally, about: dict[str, Any]) -> None:
    """Stores a share."""
    with replacing(file) as path:
        words = np.array(json.dumps(about), np.str_)
        arrays: dict[str, Any] = {"about": words, **tally.arrays(counted)}
        np.savez_compressed(path, **arrays)


def read(file: Path) -> Share:
    """A stored share.

    Raises:
      UserError: the file is missing, damaged, or holds something else.
    """
    try:
        with np.load(file) as content:
            about = json.loads(str(content["about"]))
            if not stored.fault(about, FORM):
                return Share(file, tally.from_arrays(content), about)
    except FileNotFoundError as error:
        raise UserError(f"--merge {file}: does not exist.") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # TypeError: a single array
    raise UserError(f"--merge {file}: holds no counts that `fastfcn eval --shard` wrote.")


def read_all(places: Sequence[str | Path]) -> list[Share]:
    """The shares of one evaluation, in their order; a folder stands for all shares in it.

    Raises:
      UserError: a file is no share, two do not belong together, or one is missing or there twice.
    """
    files = [file for place in places for file in _files(Path(place).expanduser())]
    found = [read(file) for file in files]
    first = found[0]
    by_index: dict[int, Share] = {}
    for other in found:
        _refuse_difference(first, other)
        index = other.about["share"][0]
        if index in by_index:
            raise UserError(
                f"--merge: {by_index[index].file} and {other.file} both hold share {other}; give "
                "each share once."
            )
        by_index[index] = other
    count = first.about["share"][1]
    if missing := [f"{i}/{count}" for i in range(count) if i not in by_index]:
        raise UserError(
            f"--merge: share {', '.join(missing)} is missing; fastfcn eval --shard {missing[0]} "
            "counts it."
        )
    ordered = [by_index[i] for i in range(count)]
    positions = np.sort(np.concatenate([share.counted.positions for share in ordered]))
    if not np.array_equal(positions, np.arange(first.about["facts"]["set of images"][1])):
        raise UserError(
            "--merge: the shares do not hold each image once; count them again, all by the same "
            "version of fastfcn."
        )
    return ordered


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    if files := sorted(place.glob(PATTERN)):
        return files
    raise UserError(f"--merge {place}: the folder has no {PATTERN} of `fastfcn eval --shard`.")


def _refuse_difference(first: Share, other: Share) -> None:
    """Raises UserError unless both are shares of the same evaluation."""
    facts = first.about["facts"]
    pairs = {name: (facts.get(name), value) for name, value in other.about["facts"].items()}
    pairs["number of shares"] = (first.about["share"][1], other.about["share"][1])
    pairs["choice of scores"] = (first.about["scores"], other.about["scores"])
    for name, (one, two) in pairs.items():
        if one != two:
            shown = f" ({two!r} instead of {one!r})" if len(f"{one!r}{two!r}") < 100 else ""
            raise UserError(
                f"--merge {other.file}: has another {name}{shown} than {first.file}; merge shares "
                "of one model that were counted in the same way."
            )
