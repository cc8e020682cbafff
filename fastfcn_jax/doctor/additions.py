"""Adds photographs to a folder prepared earlier; its classes, names and split do not change."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax import text
from fastfcn_jax.config import experiment
from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.datasets import class_list
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.data.source import IGNORE_LABEL
from fastfcn_jax.doctor import bad_files, configuration, division, reading, unify, writing
from fastfcn_jax.doctor.bad_files import BadFile, counted
from fastfcn_jax.doctor.collect import collect
from fastfcn_jax.doctor.options import Options
from fastfcn_jax.doctor.reading import Reading
from fastfcn_jax.doctor.stored_labels import Facts, Value
from fastfcn_jax.doctor.survey import Survey, survey
from fastfcn_jax.doctor.unify import Form
from fastfcn_jax.errors import UserError

LISTS = {"train": "train.txt", "val": "val.txt"}


class Known(NamedTuple):
    """The content of classes.json: the form of the labels, values of classes, values ignored.

    names: the number of each class by its name; the ignored number has the name "".
    """

    form: Form
    classes: Set[Value]
    ignored: list[Value]
    names: dict[str, int]


def add(folder: Path, options: Options) -> list[str]:
    """Rewrites train.txt and val.txt with the photographs that are new in the folder.

    Photographs already listed stay in their list. One fifth (rounded) of the new ones, spread over
    the classes, goes to validation, unless lists or folders define the split. Missing files are
    removed from the lists. classes.json and the configuration are not changed.

    Returns:
      The lines of a report.

    Raises:
      UserError: the folder was not prepared earlier, or a new label has a value of no class.
    """
    known = _known(folder)
    lists, gone = _still_there(folder)
    listed = {photo for lines in lists.values() for photo in lines}
    collected = collect(
        folder,
        photos=options.photos,
        labels=options.labels,
        empty=options.empty,
        values=known.names,
    )
    new = [pair for pair in collected.pairs if pair.photo not in listed]
    found = survey(folder, new, _pixel(folder), takes_jpeg=options.clean)
    known = known._replace(form=_form_of(known, found))
    bad = [*collected.bad, *found.bad, *_unknown(folder, found, known, clean=options.clean)]
    lines = bad_files.settle(bad, skip=options.skip_bad)
    found = found.without(bad)
    redrawn, line = reading.to_write(folder, found.facts, _reading(known, clean=options.clean))
    divided = _divide(folder, collected, found, known, options)
    for part, photos in (("train", divided.train), ("val", divided.val)):
        pairs = {pair.photo: pair for pair in found.facts}
        lists[part] |= {
            p: redrawn[pairs[p]][0] if pairs[p] in redrawn else pairs[p].label for p in photos
        }
    texts = {name: writing.listing(lists[part].items()) for part, name in LISTS.items()}
    writing.write(folder, texts, redrawn.values(), adds=True)
    added = f"{counted(len(divided.train) + len(divided.val), 'new photo')}, "
    return [
        *collected.lines,
        *(f"removed from the lists, as it is missing: {p}" for p in gone),
        *lines,
        *line,
        f"{added}{len(divided.train)} to train on, {len(divided.val)} to validate",
        *divided.lines,
        f"now {len(lists['train'])} to train on, {len(lists['val'])} to validate; classes.json and "
        "the configuration are unchanged",
    ]


def _pixel(folder: Path) -> PixelType:
    """The type of the photographs that the folder's configuration says, if there is one."""
    path = folder / configuration.NAME
    return pixel_type.of(experiment.load(str(path)).data) if path.is_file() else RGB


def _known(folder: Path) -> Known:
    path = class_list.file_of(folder)
    for needed in (path, *(folder / name for name in LISTS.values())):
        if not needed.is_file():
            raise UserError(f"{needed}: missing; prepare the folder first, without --update.")
    found = class_list.read(path)
    ignored = list(found.ignore)
    if found.is_color:
        classes = {color for c in found.classes for color in c.colors}
        return Known(Form("color", {}, True, {}), classes, ignored, {})
    classes = {v for values in found.values for v in values}
    if IGNORE_LABEL not in classes and IGNORE_LABEL not in ignored:
        ignored.append(IGNORE_LABEL)
    pairs = zip(found.classes, found.values, strict=True)
    numbers = {color: values[0] for c, values in pairs for color in c.colors}
    names = {c.name: v[0] for c, v in zip(found.classes, found.values, strict=True)}
    names |= {"": ignored[-1]} if ignored else {}
    return Known(Form("index", numbers, False, {}), classes, ignored, names)


def _still_there(folder: Path) -> tuple[dict[str, dict[Path, Path]], list[Path]]:
    """Photograph -> label of each list if the files exist, and the photographs that are missing."""
    lists, gone = {}, []
    for part, name in LISTS.items():
        lists[part] = {}
        for line in filter(str.strip, text.lines(text.read(folder / name))):
            names = line.strip().split("\t") if "\t" in line else line.split()
            if len(names) != 2:
                raise UserError(f"{folder / name}: expected 'photo label', got '{line[:200]}'.")
            photo, label = (Path(text.unescaped(n)) for n in names)
            if (folder / photo).is_file() and (folder / label).is_file():
                lists[part][photo] = label
            else:
                gone.append(photo)
    return lists, gone


def _form_of(known: Known, found: Survey) -> Form:
    """How the new labels are converted to the form of the old ones."""
    form = known.form
    if form.kind == "color" or not found.facts:
        return form
    colors = {v for f in found.facts.values() for v in f.counts if isinstance(v, tuple)}
    if colors and not colors <= form.numbers.keys() and all(len(set(c)) == 1 for c in colors):
        form = form._replace(numbers={(v, v, v): v for v in range(256)})
    sets = [set(unify.values(f, form)) for f in found.facts.values()]
    is_yes = known.classes == {0, 1} and any(255 in s for s in sets)
    return form._replace(is_yes=is_yes and not any({1, 255} <= s for s in sets))


def _unknown(folder: Path, found: Survey, known: Known, *, clean: bool) -> list[BadFile]:
    """Labels with values of no class, unless they will be repaired."""
    usable = known.classes | set(known.ignored)
    bad = []
    for pair, facts in found.facts.items():
        strange = _strange(facts, known.form) or [
            v for v in unify.values(facts, known.form) if v not in usable
        ]
        path = folder / pair.label
        if (strange or facts.rest) and not clean:
            shown = strange[0] if isinstance(strange[0], int) else list(strange[0])
            bad.append(
                BadFile(
                    pair.label,
                    f"{path}: {shown} is not a class of classes.json; list it under classes or "
                    "ignore, correct the label, or let --clean give its pixels to a class.",
                )
            )
        elif facts.transparent and not known.ignored:
            sentence = f"{path}: has transparent pixels; classes.json needs a value to ignore."
            bad.append(BadFile(pair.label, sentence))
    return bad


def _strange(facts: Facts, form: Form) -> list[Value]:
    """Colours without a number, or numbers in labels that should hold colours."""
    if form.kind == "color":
        return list(facts.counts) if facts.kind == "grey" else []
    return [v for v in facts.counts if isinstance(v, tuple) and v not in form.numbers]


def _reading(known: Known, *, clean: bool) -> Reading:
    usable = tuple(known.classes | set(known.ignored)) if clean else ()
    return Reading(known.form, usable, known.ignored[-1] if known.ignored else None)


def _divide(folder: Path, collected, found: Survey, known: Known, options) -> division.Division:
    """Follows lists or folders; takes a fifth of the other photographs for validation."""
    photos = [pair.photo for pair in found.facts]
    parts = division.Parts({}, "")
    if options.split == "auto":
        parts = division.find_parts(folder, collected.texts, collected.photos)
    said: Mapping[Path, str] = parts.of if {"train", "val"} <= set(parts.of.values()) else {}
    free = [p for p in photos if said.get(p, "") == "" and parts.of.get(p) != "test"]
    values = {
        pair.photo: unify.values(facts, known.form).keys() for pair, facts in found.facts.items()
    }
    held = division.a_fifth(free, values, at_least=0)
    train = [p for p in photos if said.get(p) == "train" or (p in free and p not in held)]
    val = [p for p in photos if said.get(p) == "val" or p in held]
    tested = len(photos) - len(train) - len(val)
    lines = [f"  left out, as they belong to a test split: {tested} photos"] if tested else []
    return division.Division(train, val, lines)
