"""Turns a folder of photographs and labels into a data set that can be trained on."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from fastfcn_jax.doctor import (
    additions,
    bad_files,
    balance,
    class_names,
    configuration,
    division,
    found_classes,
    photo_kind,
    reading,
    unify,
    words,
    writing,
)
from fastfcn_jax.doctor.collect import WRITTEN, Collected, collect
from fastfcn_jax.doctor.options import Options
from fastfcn_jax.doctor.reading import Reading
from fastfcn_jax.doctor.survey import Survey, survey, totals
from fastfcn_jax.errors import UserError


class Labels(NamedTuple):
    """The meaning of the labels: classes.json, how to read them, and report lines."""

    content: dict[str, Any]
    reading: Reading
    lines: list[str]


def adopt(
    folder: Path,
    *,
    photos: str = "",
    labels: str = "",
    names: str = "",
    split: division.SplitBy = "auto",
    update: bool = False,
    overwrite: bool = False,
    skip_bad: bool = False,
    clean: bool = False,
    empty: bool = False,
    palettes: unify.Palettes = "auto",
    channels: photo_kind.Channels = "auto",
) -> list[str]:
    """Writes classes.json, train.txt, val.txt and a configuration into `folder`.

    Photographs and labels may be in any sub-folders; docs/own_photos.md explains how they are
    recognised and paired. All files are read before the first is written, and none is changed: a
    label that training cannot read directly is converted into a copy in `fastfcn_labels`.

    Args:
      photos, labels: sub-folder, or pattern such as `gtFine/*_color.png`, of all photographs, of
        all labels (or a file of outlines); "" to find out.
      names: file that lists the classes; "none" for no such file, "" to detect it.
      split: "auto" follows lists and folders called train and val; "fifth" takes one photograph
        in five for validation.
      update: adds new photographs to a folder prepared earlier, see `additions.add`.
      overwrite: replaces what was written before; files with other content are kept as `.bak`.
      skip_bad: leaves out files that cannot be used.
      clean: assigns pixels whose value is not a class to a class, see `clean.repair`.
      empty: photographs without any outline become background instead of being left out.
      palettes: what labels with a palette mean, see `unify.decide`.
      channels: what photographs hold, see `photo_kind.find`.

    Returns:
      The lines of a report, the next command last.

    Raises:
      UserError: there are no pairs, files cannot be used, the meaning of labels is ambiguous, or
        earlier files would be lost.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set --folder to the one with your photos.")
    options = Options(photos, labels, names, split, skip_bad, clean, empty, palettes, channels)
    if update:
        return additions.add(folder, options)
    if not overwrite:
        _refuse_existing(folder)
    return _adopt(folder, options)


def _adopt(folder: Path, options: Options) -> list[str]:
    collected = collect(folder, photos=options.photos, labels=options.labels, empty=options.empty)
    pixel, kind = photo_kind.find(folder, [p.photo for p in collected.pairs], options.channels)
    read = survey(folder, collected.pairs, pixel, takes_jpeg=options.clean)
    read, meant, lines = understand(folder, collected, read, options)
    values = {
        pair.photo: unify.values(facts, meant.reading.form).keys()
        for pair, facts in read.facts.items()
    }
    parts = division.Parts({}, "")
    if options.split == "auto":
        parts = division.find_parts(folder, collected.texts, collected.photos)
    divided = division.divide(list(values), parts, values)
    redrawn, line = reading.to_write(folder, read.facts, meant.reading)
    measured = None
    if read.moments:
        used = {pair.photo: found for pair, found in read.moments.items()}
        measured = photo_kind.together(used[photo] for photo in divided.train)
        kind = [*kind, *photo_kind.describe(pixel, measured)]
    place_of = {p.photo: redrawn[p][0] if p in redrawn else p.label for p in read.facts}
    texts = {
        "train.txt": writing.listing((p, place_of[p]) for p in divided.train),
        "val.txt": writing.listing((p, place_of[p]) for p in divided.val),
        "classes.json": found_classes.to_json(meant.content),
        configuration.NAME: configuration.configuration(
            folder, list(read.sizes.values()), len(divided.train), pixel, measured
        ),
    }
    kept = writing.write(folder, texts, redrawn.values())
    return [
        *collected.lines,
        *kind,
        *lines,
        *meant.lines,
        *line,
        *division.describe(divided),
        *(f"kept the old file as {name}" for name in kept),
        *_next(folder, options, meant.content),
    ]


def understand(
    folder: Path, collected: Collected, read: Survey, options: Options
) -> tuple[Survey, Labels, list[str]]:
    """The pairs that are used, the meaning of their labels, and lines about the other pairs.

    Raises:
      UserError: there are bad files, or the meaning of the labels is ambiguous.
    """
    bad = [*collected.bad, *read.bad]
    bad_files.settle(bad, skip=options.skip_bad)
    names, form, said = _form(folder, collected, read, options)
    found = reading.assess(folder, read, form, names)
    if not options.clean:
        smooth, sentence = reading.unclean(folder, read, form, found)
        if sentence and len(smooth) > reading.MOSTLY * len(read.facts):
            raise UserError(sentence)
        bad += smooth
        lines = bad_files.settle(bad, skip=options.skip_bad)
        if smooth:
            read = read.without(smooth)
            found = reading.assess(folder, read, form, names)
    else:
        lines = bad_files.settle(bad, skip=options.skip_bad)
    return read, _labels(folder, read, form, found, names, said, options), lines


def _form(folder, collected: Collected, read: Survey, options: Options):
    """The list of class names, the form of all labels, and lines about both."""
    if not read.facts:
        raise UserError(f"{folder}: no usable label is left.")
    facts = {pair.name: found for pair, found in read.facts.items()}
    if collected.names is not None and not options.names:
        form, formed = unify.decide(folder, facts, None)
        return collected.names, form, formed
    stems = {words.plain(p.stem) for p in collected.photos}
    texts = [
        p
        for p in collected.texts
        if class_names.may_be_list(p, stems) and p.as_posix() not in WRITTEN
    ]
    names, named = class_names.find(folder, texts, read.values(), named=options.names)
    form, formed = unify.decide(folder, facts, names, options.palettes)
    return names, form, [*named, *formed]


def _labels(folder, read: Survey, form, found, names, said, options: Options) -> Labels:
    counts, _ = totals([unify.values(f, form) for f in read.facts.values()])
    mends = options.clean and bool(found.smooth or found.stray)
    repaired = sum(counts[v] for v in (*found.smooth, *found.stray)) + sum(
        f.rest for f in read.facts.values()
    )
    lines = [] if mends else _stray_lines(read, form, found)
    if mends:
        counts = reading.counted_as_repaired(counts, found)
        lines = [f"  {repaired} pixels of no class are assigned to a class, as --clean says"]
    if len(counts) - (0 if mends else len(found.stray)) < 2:
        raise UserError(
            f"{folder}: all labels hold the one value {next(iter(counts))}: there is nothing to "
            "learn; give --labels DIR if the labels are elsewhere."
        )
    transparent = sum(f.transparent for f in read.facts.values())
    content, described = found_classes.build(
        counts,
        names=names,
        colors=form.colors,
        stray=[] if mends else list(found.stray),
        transparent=transparent,
    )
    kept = tuple(found.classes) if mends else ()
    plan = Reading(form, kept, reading.transparent_value(content) if transparent else None)
    return Labels(content, plan, [*described, *said, *lines, *_balance(content, counts)])


def _balance(content: dict[str, Any], counts: Counter) -> list[str]:
    """Advice about classes of few pixels."""
    key = "color" if content["labels"] == "color" else "value"
    values = [tuple(c[key]) if key == "color" else c[key] for c in content["classes"]]
    names = [c["name"] for c in content["classes"]]
    return [
        line
        for note in balance.advise(names, [counts[v] for v in values])
        for line in (f"  {note.text}", f"    {note.remedy}")
    ]


def _stray_lines(read: Survey, form, found) -> list[str]:
    lines = []
    for value, count in found.stray.items():
        where = next(p.label for p, f in read.facts.items() if value in unify.values(f, form))
        shown = value if isinstance(value, int) else list(value)
        lines.append(
            f"  {shown} is taken for noise, not a class: {bad_files.counted(count, 'pixel')} in "
            f"{where} (--clean assigns them to the class around; a list that names it keeps it)"
        )
    return lines


def _refuse_existing(folder: Path) -> None:
    existing = [n for n in WRITTEN if (folder / n).exists()]
    if existing:
        raise UserError(
            f"{folder / existing[0]}: exists; add --overwrite to replace it (the old one is kept "
            f"as {existing[0]}.bak), or --update to add new photographs."
        )


def _next(folder: Path, options: Options, content: dict[str, Any]) -> list[str]:
    are_named = not any(c["name"].startswith("class_") for c in content["classes"])
    naming = "" if are_named else "; put names to the classes in classes.json"
    small = f"{folder / configuration.NAME}:small"
    return [
        f"wrote {', '.join(WRITTEN)} in {folder}{naming}",
        "when there are more photographs:",
        f"  fastfcn doctor --folder {folder} --update{options.flags()}",
        "next (on a GPU without :small):",
        f"  fastfcn doctor --config {small} --images doctor",
        f"  fastfcn train --config {small} --workdir runs/{folder.resolve().name}-small",
    ]
