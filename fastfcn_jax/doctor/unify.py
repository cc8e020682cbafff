"""Finds one form for all labels of a folder, numbers or colours, if it is unambiguous."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fastfcn_jax.doctor.bad_files import counted
from fastfcn_jax.doctor.class_names import NameList
from fastfcn_jax.doctor.stored_labels import Facts, Stored, Value, codes
from fastfcn_jax.errors import UserError

Color = tuple[int, int, int]


class Form(NamedTuple):
    """The form that all labels are converted to.

    numbers: the number of each colour, for colour labels that become numbers; unrolls_palettes:
    palette labels mean their colours; colors: the palettes' colours of numbers; is_yes: labels of 0
    and 255 are read as 0 and 1, like the others.
    """

    kind: Literal["index", "color"]
    numbers: dict[Color, int]
    unrolls_palettes: bool
    colors: dict[int, Color]
    is_yes: bool = False


Palettes = Literal["auto", "numbers", "colors"]


def decide(
    folder: Path,
    labels: Mapping[Path, Facts],
    names: NameList | None,
    palettes: Palettes = "auto",
) -> tuple[Form, list[str]]:
    """The form that suits all labels, and lines about the decisions.

    Args:
      palettes: what a palette label means: its numbers, its colours, or ("auto") its numbers if all
        palettes agree.

    Raises:
      UserError: colours and numbers are mixed, and the number of a colour is not known.
    """
    palette, clash = _palette_of(labels)
    lines = []
    unrolls = palettes == "colors" or (palettes == "auto" and bool(clash))
    if clash and palettes == "auto":
        lines.append(
            f"  palettes differ ({clash}), so their colours are used, not their numbers "
            "(--palettes numbers uses these)"
        )
    kinds = {found.kind for found in labels.values()}
    if palettes == "auto" and kinds == {"palette", "color"} and not unrolls:
        used = {v for f in labels.values() for v in f.counts if isinstance(v, tuple)}
        if not used <= set(palette.values()):
            unrolls = True
            lines.append("  labels with palettes are read as colours, like the others")
    of_kind = {"grey": [], "color": []}
    for path, found in labels.items():
        is_color = found.kind == "color" or (found.kind == "palette" and unrolls)
        of_kind["color" if is_color else "grey"].append(path)
    form = Form("index", {}, unrolls, {} if unrolls else palette)
    if not of_kind["color"]:
        return _binary(form, labels, names, lines)
    used = {c for p in of_kind["color"] for c in values(labels[p], form._replace(kind="color"))}
    form, line = _with_colors(folder, form, of_kind, used, names)
    return _binary(form, labels, names, [*lines, *line])


def _with_colors(folder, form: Form, of_kind, used, names) -> tuple[Form, list[str]]:
    """The form if some or all labels are colour images."""
    number = {color: value for value, color in form.colors.items()}
    number |= {e.color: e.value for e in names.entries if e.value is not None} if names else {}
    count, example = len(of_kind["color"]), of_kind["color"][0].name
    if of_kind["grey"] and used <= number.keys():
        line = (
            f"  {counted(count, 'colour label')} (such as {example}) get the numbers that the "
            f"{'palettes give' if form.colors else 'list gives'} their colours"
        )
        return form._replace(numbers={c: number[c] for c in used}), [line]
    if all(red == green == blue for red, green, blue in used):
        numbers = {(v, v, v): v for v in range(256)}
        line = f"  {counted(count, 'label')} of three equal channels are read as grey"
        return form._replace(numbers=numbers), [line]
    if of_kind["grey"]:
        raise UserError(
            f"{folder}: some labels are colour images ({of_kind['color'][0]}), some index "
            f"images ({of_kind['grey'][0]}); store all in one form, or write a list of lines "
            "'value r g b name'."
        )
    return form._replace(kind="color", colors={}), []


def _binary(form: Form, labels, names, lines) -> tuple[Form, list[str]]:
    """Masks of 0 and 1 mixed with masks of 0 and 255 mean the same two classes."""
    if form.kind == "color" or (names and names.entry(255)):
        return form, lines
    sets = {path: set(values(found, form)) for path, found in labels.items()}
    with_255 = [p for p, s in sets.items() if 255 in s]
    with_1 = [p for p, s in sets.items() if 1 in s]
    is_mixed = with_255 and with_1 and not set(with_255) & set(with_1)
    if is_mixed and set().union(*sets.values()) <= {0, 1, 255}:
        line = (
            f"  255 in {counted(len(with_255), 'label')} is read as the 1 of the others (a list "
            "that names 255 keeps it)"
        )
        return form._replace(is_yes=True), [*lines, line]
    return form, lines


def values(found: Facts, form: Form) -> Counter:
    """Pixels of each value after conversion; colours without a number are left out."""
    return _renamed(found.counts, found, form)


def solid(found: Facts, form: Form) -> Counter:
    """Like `values`, for pixels with four equal neighbours."""
    return _renamed(found.solid, found, form)


def is_kept(found: Facts, form: Form) -> bool:
    """Whether training can read the file directly."""
    changes_kind = (found.kind == "color") != (form.kind == "color")
    changes_yes = form.is_yes and 255 in values_before_yes(found, form)
    return found.is_plain and not found.transparent and not changes_kind and not changes_yes


def values_before_yes(found: Facts, form: Form) -> Counter:
    return values(found, form._replace(is_yes=False))


def apply(stored: Stored, form: Form) -> np.ndarray:
    """The values of a label after conversion, uint8 (h, w) or (h, w, 3)."""
    pixels = stored.pixels
    if stored.kind == "palette" and form.unrolls_palettes and stored.palette is not None:
        pixels = stored.palette[np.minimum(pixels, len(stored.palette) - 1)]
    if form.kind == "color" or pixels.ndim == 2:
        result = pixels
    else:
        found, inverse = np.unique(codes(pixels), return_inverse=True)
        numbers = {c[0] << 16 | c[1] << 8 | c[2]: n for c, n in form.numbers.items()}
        table = np.array([numbers[int(code)] for code in found], np.uint8)
        result = table[inverse].reshape(pixels.shape[:2])
    return np.where(result == 255, 1, result).astype(np.uint8) if form.is_yes else result


def _renamed(counts: Mapping[Value, int], found: Facts, form: Form) -> Counter:
    result: Counter = Counter()
    for value, count in counts.items():
        if isinstance(value, int) and found.kind == "palette" and form.unrolls_palettes:
            value = found.palette.get(value, (0, 0, 0))
        if form.kind == "index" and isinstance(value, tuple):
            if value not in form.numbers:
                continue
            value = form.numbers[value]
        result[1 if form.is_yes and value == 255 else value] += count
    return result


def _palette_of(labels: Mapping[Path, Facts]) -> tuple[dict[int, Color], str]:
    """The colours of all palettes together, and the first disagreement in words."""
    merged: dict[int, tuple[Color, Path]] = {}
    for path, found in labels.items():
        for value, color in found.palette.items():
            known, where = merged.setdefault(value, (color, path))
            if known != color:
                text = f"{value} is {list(known)} in {where.name}, {list(color)} in {path.name}"
                return {}, text
    return {value: color for value, (color, _) in merged.items()}, ""
