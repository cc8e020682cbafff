"""Reads the labels of a folder in one form; decides which are repaired and which are converted."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastfcn_jax.doctor import clean, unify
from fastfcn_jax.doctor.bad_files import BadFile, counted
from fastfcn_jax.doctor.class_names import NameList
from fastfcn_jax.doctor.clean import Cleanliness
from fastfcn_jax.doctor.collect import Pair
from fastfcn_jax.doctor.stored_labels import Facts, Value
from fastfcn_jax.doctor.survey import Survey, totals
from fastfcn_jax.doctor.unify import Form
from fastfcn_jax.doctor.writing import Drawing, label_place
from fastfcn_jax.errors import UserError

MAX_CLASSES = 254
MOSTLY = 0.2  # with a larger share of unclean labels, the cause is not single files


class Reading(NamedTuple):
    """How labels are converted to the form that training reads.

    classes: the values that remain when labels are repaired, or () if they are not;
    transparent: the value that transparent pixels get.
    """

    form: Form
    classes: Collection[Value] = ()
    transparent: Value | None = None


def assess(folder: Path, survey: Survey, form: Form, names: NameList | None) -> Cleanliness:
    """Which values are classes; see `clean.assess`.

    Raises:
      UserError: there are so many values without area that the classes cannot be recognised.
    """
    counts, files = totals([unify.values(f, form) for f in survey.facts.values()])
    solid, _ = totals([unify.solid(f, form) for f in survey.facts.values()])
    named = {v for v in counts if names and names.entry(v)}
    rest = sum(f.rest for f in survey.facts.values())
    found = clean.assess(counts, solid, files, named, rest)
    if len(found.classes) > MAX_CLASSES or (rest and not found.smooth):
        raise UserError(
            f"{folder}: {len(counts)} different colours in the labels; they were saved with "
            "loss or resized smoothly. Export them again as PNG without antialiasing."
        )
    return found


def unclean(
    folder: Path, survey: Survey, form: Form, found: Cleanliness
) -> tuple[list[BadFile], str]:
    """The labels with values that result from smoothing, and a sentence if there are many."""
    smooth = set(found.smooth)
    if not smooth and not any(f.rest for f in survey.facts.values()):
        return [], ""
    bad = []
    for pair, facts in survey.facts.items():
        wrong = smooth & unify.values(facts, form).keys()
        if not wrong and not facts.rest:
            continue
        many = "more than 1000" if facts.rest else str(len(wrong))
        sentence = (
            f"{folder / pair.label}: {many} different colours in a label that fill no area, as it "
            "was saved with loss or resized smoothly; export it again as PNG without "
            "antialiasing, or repair it with --clean."
        )
        bad.append(BadFile(pair.label, sentence))
    if len(bad) <= MOSTLY * len(survey.facts):
        return bad, ""
    many, shown = counted(len(bad), "label"), _shown(found.classes)
    return bad, (
        f"{folder}: {many} of {len(survey.facts)} (such as {bad[0].path}) hold values between the "
        f"{len(found.classes)} that fill areas ({shown}), as smooth resizing, antialiasing or "
        "saving with loss leave them; add --clean to assign each such pixel to one of these "
        "(in copies; your files do not change), or list all values that are classes in a "
        "file (see --names)."
    )


def to_write(
    folder: Path, facts: dict[Pair, Facts], reading: Reading
) -> tuple[dict[Pair, Drawing], list[str]]:
    """The labels that training cannot read directly, and a line about them."""
    copies = {}
    for pair, found in facts.items():
        wrong = bool(reading.classes) and (
            found.rest or not unify.values(found, reading.form).keys() <= set(reading.classes)
        )
        if wrong or not unify.is_kept(found, reading.form):
            copies[pair] = (label_place(pair.photo), _drawing(folder, pair, reading))
    if not copies:
        return {}, []
    where = label_place(Path("x")).parent
    line = (
        f"  {counted(len(copies), 'label')} converted into copies in {where}; yours are unchanged"
    )
    return copies, [line]


def _drawing(folder: Path, pair: Pair, reading: Reading):
    return lambda: read(folder, pair, reading)


def read(folder: Path, pair: Pair, reading: Reading) -> np.ndarray:
    """The values of a label as training reads them, uint8 (h, w) or (h, w, 3)."""
    stored = pair.stored(folder)
    pixels = unify.apply(stored, reading.form)
    if reading.classes:
        pixels = clean.repair(pixels, reading.classes, are_ordered=stored.kind != "palette")
    if stored.transparent is not None and reading.transparent is not None:
        pixels = pixels.copy()
        pixels[stored.transparent] = reading.transparent
    return pixels


def transparent_value(content: dict[str, Any]) -> Value | None:
    """The ignored value that transparent pixels get; None if classes.json ignores none."""
    if not content.get("ignore"):
        return None
    value = content["ignore"][-1]
    return tuple(value) if isinstance(value, list) else value


def counted_as_repaired(counts: Counter, found: Cleanliness) -> Counter:
    """Only the values that remain after the repair; how many pixels they gain is not known."""
    return Counter({v: n for v, n in counts.items() if v in found.classes})


def _shown(values: Collection[Value]) -> str:
    shown = [str(v if isinstance(v, int) else list(v)) for v in list(values)[:6]]
    return ", ".join(shown) + (" ..." if len(values) > 6 else "")
