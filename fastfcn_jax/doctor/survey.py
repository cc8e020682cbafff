"""Reads every photograph and label once: label values, sizes, bad files."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.data import decode, rasters
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import Encoded, check_sizes, read_file
from fastfcn_jax.doctor import photo_kind, stored_labels
from fastfcn_jax.doctor.bad_files import BadFile
from fastfcn_jax.doctor.collect import Pair
from fastfcn_jax.doctor.photo_kind import Moments
from fastfcn_jax.doctor.stored_labels import Facts, Value
from fastfcn_jax.errors import UserError


class Survey(NamedTuple):
    """Result of reading; `facts` and `sizes` (height, width) contain the intact pairs.

    moments: of the photographs' values; empty if they are 8-bit RGB.
    """

    facts: dict[Pair, Facts]
    sizes: dict[Pair, tuple[int, int]]
    bad: list[BadFile]
    moments: dict[Pair, Moments]

    def without(self, bad: Sequence[BadFile]) -> "Survey":
        gone = {b.path for b in bad}
        return Survey(
            {p: f for p, f in self.facts.items() if not gone & set(p)},
            {p: s for p, s in self.sizes.items() if not gone & set(p)},
            [*self.bad, *bad],
            {p: m for p, m in self.moments.items() if not gone & set(p)},
        )

    def values(self) -> set[Value]:
        """All numbers and colours as stored; greys as numbers if there are no other colours."""
        found: set[Value] = set()
        for facts in self.facts.values():
            found |= facts.counts.keys()
        if all(isinstance(v, int) or v[0] == v[1] == v[2] for v in found):
            return {v if isinstance(v, int) else v[0] for v in found}
        return found


def survey(
    folder: Path, pairs: Sequence[Pair], pixel: PixelType = RGB, *, takes_jpeg: bool = False
) -> Survey:
    """Reads the files of all pairs.

    Args:
      pixel: type that the photographs should have.
      takes_jpeg: accept labels in JPEG, as they will be repaired.
    """
    result = Survey({}, {}, [], {})
    with ThreadPoolExecutor() as pool:
        looks = pool.map(lambda pair: _look(folder, pair, pixel, takes_jpeg), pairs)
        for pair, found in zip(pairs, looks, strict=True):
            if isinstance(found, BadFile):
                result.bad.append(found)
            else:
                result.facts[pair], result.sizes[pair], moments = found
                if moments is not None:
                    result.moments[pair] = moments
    return result


def _look(
    folder: Path, pair: Pair, pixel: PixelType, takes_jpeg: bool
) -> tuple[Facts, tuple[int, int], Moments | None] | BadFile:
    photo, label = str(folder / pair.photo), str(folder / pair.label)
    try:
        stored = pair.stored(folder)
        data = read_file(label) if pair.draw is None else b""
        if data.startswith(decode.JPEG) and not takes_jpeg:
            return BadFile(
                pair.label,
                f"{label}: a label in JPEG, which changes colours; export it as PNG, or let "
                "--clean repair it.",
            )
    except UserError as error:
        return BadFile(pair.name, str(error))
    try:
        files = Encoded(read_file(photo), data, photo, label)
        image = rasters.image(files.image, photo, pixel)
        check_sizes(files, image, stored.pixels)
    except UserError as error:
        return BadFile(pair.photo, str(error))
    moments = None if pixel == RGB else photo_kind.measure(image)
    return stored_labels.facts(stored), image.shape[:2], moments


def totals(counters: Sequence[Counter]) -> tuple[Counter, Counter]:
    """The sum of all counters, and the number of counters in which each value occurs."""
    total, files = Counter(), Counter()
    for counter in counters:
        total.update(counter)
        files.update(counter.keys())
    return total, files
