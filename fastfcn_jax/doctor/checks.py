"""Finds problems of a data set and their remedies: files, sizes, label values, class balance."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from fastfcn_jax.data import decode
from fastfcn_jax.data.source import IGNORE_LABEL, EncodedSource, LabelTable, Source
from fastfcn_jax.errors import UserError

VOID_WORDS = ("void", "unlabel", "unlabelled", "ignore", "other", "undefined", "don't care")


DARK = 64  # of 255: what 14-bit values in 16-bit files come to; at night, lamps are brighter


class Finding(NamedTuple):
    """One line of the report; `remedy` is the setting or command that solves a problem."""

    level: Literal["ok", "note", "problem"]
    text: str
    remedy: str = ""


@dataclass
class Survey:
    """Statistics of some samples.

    counts: pixels of each class index; stored: pixels of each value as stored in index labels
    (all 0 for colour labels); sizes: (height, width) of each readable image; brightest: largest
    value of 8-bit images, 0 if there are none.
    """

    examined: int
    counts: Int[np.ndarray, "256"] = field(default_factory=lambda: np.zeros(256, np.int64))
    stored: Int[np.ndarray, "256"] = field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: list[tuple[int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    brightest: int = 0


def survey(source: Source, *, max_images: int = 200, threads: int = 8) -> Survey:
    """Reads evenly spaced samples and keeps the error messages of those that are bad."""
    indices = np.unique(np.linspace(0, len(source) - 1, max_images).astype(int))
    result = Survey(len(indices))
    with ThreadPoolExecutor(threads) as pool:
        for size, counts, stored, brightest, error in pool.map(
            lambda i: _look(source, int(i)), indices
        ):
            result.stored += stored
            if error:
                result.errors.append(error)
            else:
                result.counts += counts
                result.sizes.append(size)
                result.brightest = max(result.brightest, brightest)
    return result


def findings(source: Source, found: Survey, crop_size: tuple[int, int]) -> list[Finding]:
    """All findings of the survey about files, labels, balance and sizes."""
    return [
        *_files(found),
        *_brightness(found),
        *_label_values(source, found),
        *_classes(source.info.class_names, found),
        *_sizes(found, crop_size),
    ]


def _look(source: Source, index: int) -> tuple[Any, Any, Any, int, str]:
    stored = np.zeros(256, np.int64)
    try:
        if isinstance(source, EncodedSource):
            files = source.read(index)
            raw = decode.label(files.label, files.label_name)
            if raw.ndim == 2:
                stored = np.bincount(raw.ravel(), minlength=256)
            sample = source.decode(index, files)
        else:
            sample = source[index]
    except UserError as error:
        return None, None, stored, 0, str(error)
    counts = np.bincount(sample.label.ravel(), minlength=256)
    brightest = int(sample.image.max()) if sample.image.dtype == np.uint8 else 0
    return sample.label.shape, counts, stored, brightest, ""


def _files(found: Survey) -> list[Finding]:
    if not found.errors:
        return [Finding("ok", f"{found.examined} images and labels read without error")]
    many = f"{len(found.errors)} of {found.examined} samples cannot be used"
    listed = [Finding("problem", e, "repair or remove the file") for e in found.errors[:5]]
    return [Finding("problem", many, "the first of them are listed below"), *listed]


def _brightness(found: Survey) -> list[Finding]:
    """Cameras of 10 or 12 bits fill only the low bits of 16-bit files: 8 bits of them are black."""
    if not 0 < found.brightest < DARK:
        return []
    return [
        Finding(
            "note",
            f"the brightest value of all images is {found.brightest} of 255, almost black; 16-bit "
            "files with fewer bits are read as 8-bit ones",
            "fastfcn doctor --folder PHOTOS writes data.dtype and data.scaling for such files",
        )
    ]


def _label_values(source: Source, found: Survey) -> list[Finding]:
    """Patterns of label values that point to a wrong list of classes rather than wrong files."""
    table = getattr(source, "to_classes", None)
    if not isinstance(table, LabelTable) or not found.stored.any():
        return []
    values = set(np.flatnonzero(found.stored).tolist())
    classes = set(np.flatnonzero(table.table < LabelTable.UNKNOWN).tolist())
    unknown = values - set(np.flatnonzero(table.table != LabelTable.UNKNOWN).tolist())
    count = len(classes)
    shown = _spelled(values)
    if values == {0, IGNORE_LABEL} and count == 2 and IGNORE_LABEL not in classes:
        return [
            Finding(
                "problem",
                "labels hold only 0 and 255, and 255 is ignored: the second class never occurs",
                'give the second class "value": 255 in classes.json',
            )
        ]
    if unknown == {count} and classes == set(range(count)) and 0 not in values:
        return [
            Finding(
                "problem",
                f"labels hold {shown} for {count} classes 0..{count - 1}: they count from 1",
                f'give the classes "value": 1 to {count} in classes.json',
            )
        ]
    if unknown == {count} and classes == set(range(count)):
        return [
            Finding(
                "problem",
                f"labels hold {shown}: one value more than the {count} classes",
                'if 0 is background: "ignore": [0], and "value": 1, 2, ... for the classes in '
                "classes.json; else list the missing class",
            )
        ]
    if unknown:
        return [
            Finding(
                "problem",
                f"labels hold values that are not classes: {_spelled(unknown)}",
                "list them in classes.json, as classes or under ignore"
                if source.info.name == "folder"
                else "is this the label folder of the data set in config.data.name?",
            )
        ]
    if source.info.name == "ade20k" and 150 not in values and {0, IGNORE_LABEL} <= values:
        return [
            Finding(
                "note",
                "ADE20K labels hold 255 but never 150: they may have been reduced by 1 already",
                "use the annotations as published; 0 is mapped to ignored while reading",
            )
        ]
    return [Finding("ok", f"label values {shown} are all known")]


def _classes(names: Sequence[str], found: Survey) -> list[Finding]:
    result = []
    for name in names:
        if any(word in name.lower() for word in VOID_WORDS):
            result.append(
                Finding(
                    "note",
                    f"class '{name}' will be trained and scored as a class",
                    "if it means 'no class', move it to ignore in classes.json",
                )
            )
    total = found.counts.sum()
    if not total:
        return result
    ignored = found.counts[IGNORE_LABEL] / total
    if ignored > 0.5:
        result.append(
            Finding(
                "problem" if ignored == 1 else "note",
                f"{100 * ignored:.0f} % of the pixels are ignored",
                "check which label values are listed under ignore",
            )
        )
    counts = found.counts[: len(names)]
    absent = [n for n, c in zip(names, counts, strict=True) if not c]
    if absent:
        listed = ", ".join(absent[:8]) + (" ..." if len(absent) > 8 else "")
        result.append(
            Finding("note", f"{len(absent)} classes do not occur in the sample: {listed}")
        )
    return result


def _sizes(found: Survey, crop_size: tuple[int, int]) -> list[Finding]:
    if not found.sizes:
        return []
    heights, widths = np.array(found.sizes).T
    text = f"images are {widths.min()}x{heights.min()} to {widths.max()}x{heights.max()} pixels"
    small = ((heights < crop_size[0] // 2) & (widths < crop_size[1] // 2)).mean()
    if small > 0.5:
        h, w = (max(int(np.median(s)) // 8 * 8, 8) for s in (heights, widths))
        return [
            Finding(
                "note",
                f"{text}, less than half the crop of {crop_size[1]}x{crop_size[0]}: most of it "
                "will be padding unless images are scaled up",
                f'--config.data.crop_size="({h}, {w})"',
            )
        ]
    return [Finding("ok", text)]


def histogram(names: Sequence[str], found: Survey) -> str:
    """A table with each class's share of the pixels."""
    total = max(found.counts.sum(), 1)
    rows = [(*pair, "") for pair in zip(names, found.counts[: len(names)], strict=True)]
    rows.append(("(ignored)", found.counts[IGNORE_LABEL], ""))
    width = max(len(r[0]) for r in rows)
    return "\n".join(
        f"  {name:{width}} {100 * count / total:6.2f} % {'#' * round(50 * count / total)}".rstrip()
        for name, count, _ in rows
    )


def _spelled(values: set[int]) -> str:
    """0, 1, 2, 255 -> "0..2, 255"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in runs)
