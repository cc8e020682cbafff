"""Builds classes.json from a folder's labels: values, names, colours and what is ignored."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from fastfcn_jax.data.source import IGNORE_LABEL
from fastfcn_jax.doctor.class_names import NameList, is_void_name
from fastfcn_jax.doctor.stored_labels import Value, code_of

MAX_CLASSES = 254
MAX_IGNORED_BLACK = 0.01  # black with a larger share is background, which is a class
BLACK = (0, 0, 0)


def build(
    counts: Counter,
    *,
    names: NameList | None,
    colors: Mapping[int, tuple[int, int, int]],
    stray: Collection[Value],
    transparent: int,
) -> tuple[dict[str, Any], list[str]]:
    """The content of classes.json, and lines about each class and each ignored value.

    Args:
      counts: pixels of each number or (r, g, b) that occurs.
      colors: the colours of numbers in palettes.
      stray: values that are noise; transparent: number of pixels whose alpha is 0.
    """
    is_color = any(isinstance(v, tuple) for v in counts)
    kept = Counter({v: n for v, n in counts.items() if v not in stray})
    void, lines = _void(kept, names)
    key = "color" if is_color else "value"
    entries = []
    for number, value in enumerate(sorted((v for v in kept if v not in void), key=code_of)):
        listed = names.entry(value) if names else None
        entry: dict[str, Any] = {"name": listed.name if listed else f"class_{number}"}
        entry[key] = list(value) if is_color else value
        shown = None
        if isinstance(value, int):
            shown = (listed and listed.color) or colors.get(value)
        entries.append(entry | ({"color": list(shown)} if shown else {}))
    _tell_apart(entries)
    ignore: list[Value] = sorted([*void, *stray], key=code_of)
    if transparent and not ignore:
        ignore.append(_free(counts, is_color))
    content = {
        "labels": "color" if is_color else "index",
        "classes": _with_own_colors(entries, is_color),
        "ignore": [list(v) if isinstance(v, tuple) else v for v in ignore],
    }
    return content, [*_described(content, counts, transparent), *lines, *_missing(names, counts)]


def to_json(content: dict[str, Any]) -> str:
    """JSON with one class per line, easy to edit by hand."""
    classes = ",\n".join(f"  {json.dumps(e, ensure_ascii=False)}" for e in content["classes"])
    kind, ignore = json.dumps(content["labels"]), json.dumps(content["ignore"])
    return f'{{"labels": {kind},\n "classes": [\n{classes}],\n "ignore": {ignore}}}\n'


def _void(counts: Counter, names: NameList | None) -> tuple[list[Value], list[str]]:
    """The values that are ignored, and lines about doubtful cases."""
    listed = [v for v in counts if names and names.is_void(v)]
    if len(counts) - len(listed) < 2:  # a model needs two classes
        listed = []
    void, lines, left = list(listed), [], len(counts) - len(listed)
    outside = names.unlabelled if names else None
    if outside in counts and counts[outside] <= MAX_IGNORED_BLACK * counts.total() and left > 2:
        void.append(outside)
        lines.append("  what no outline covers is ignored, as it is so little")
    for value in (IGNORE_LABEL, BLACK):
        if value not in counts or value in void or (names and names.entry(value)):
            continue
        share = counts[value] / counts.total()
        written = value if isinstance(value, int) else " ".join(map(str, value))
        kept = f"the line '{written} void' in a list of classes ignores it"
        shown = f"  {value if isinstance(value, int) else list(value)} is a class here"
        if left <= 2:
            key = "value" if value == IGNORE_LABEL else "color"
            lines.append(f"{shown}, not ignored: there is only one other {key} ({kept})")
        elif value == IGNORE_LABEL and _are_spread(sorted(map(code_of, counts))):
            lines.append(f"{shown}: the values are spread over 0..255 ({kept})")
        elif value == BLACK and share > MAX_IGNORED_BLACK:
            lines.append(f"{shown}: it covers {100 * share:.2f} % of the pixels ({kept})")
        else:
            void.append(value)
    return void, lines


def _are_spread(values: list[int]) -> bool:
    """Whether values are spread over 0..255 for display, e.g. 0, 127, 255: then 255 is a class."""
    step = 255 / (len(values) - 1)
    return step > 8 and all(abs(v - k * step) <= 2 for k, v in enumerate(values))


def _free(counts: Counter, is_color: bool) -> Value:
    """A value that no label has, for transparent pixels; starts at 255, which is always ignored."""
    if not is_color:
        return next(v for v in range(255, -1, -1) if v not in counts)
    return next((v, 0, v) for v in range(255, -1, -1) if (v, 0, v) not in counts)


def _with_own_colors(entries: list[dict], is_color: bool) -> list[dict]:
    """Keeps palette colours only if every class has one and all are different."""
    colors = [tuple(e.get("color", ())) for e in entries]
    is_grey = all(len(set(c)) == 1 for c in colors)
    if is_color or (all(colors) and len(set(colors)) == len(colors) and not is_grey):
        return entries
    return [{k: v for k, v in e.items() if k != "color"} for e in entries]


def _tell_apart(entries: list[dict]) -> None:
    """Makes names unique: classes with the same name would be merged in every table."""
    seen: Counter = Counter()
    for entry in entries:
        seen[entry["name"]] += 1
        if seen[entry["name"]] > 1:
            entry["name"] += f"_{seen[entry['name']]}"


def _described(content: dict, counts: Counter, transparent: int) -> list[str]:
    """A line for each class and each ignored value, with its share of all pixels."""
    key = "color" if content["labels"] == "color" else "value"
    total = counts.total() + transparent

    def line(name: str, value) -> str:
        found = counts[tuple(value) if isinstance(value, list) else value]
        share = found / total
        return f"  {name:20} {value!s:18} {100 * share:6.2f} % of the pixels"

    lines = [f"{content['labels']} labels, {len(content['classes'])} classes:"]
    lines += [line(e["name"], e[key]) for e in content["classes"]]
    ignored = [v for v in content["ignore"] if counts[tuple(v) if key == "color" else v]]
    for value in ignored:
        lines.append(f"{line('(ignored)', value)}; list it in classes.json to make it a class")
    if transparent:
        share = 100 * transparent / total
        lines.append(
            f"  {'(ignored)':20} {'transparent':18} {share:6.2f} % of the pixels; list "
            f"{content['ignore'][-1]} in classes.json to make them a class"
        )
    return lines


def _missing(names: NameList | None, counts: Counter) -> list[str]:
    """Classes of the list that no label has."""
    if names is None:
        return []
    found = {names.entry(v) for v in counts}
    absent = [e.name for e in names.entries if e not in found and not is_void_name(e.name)]
    if not absent:
        return []
    shown = ", ".join(absent[:6]) + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
    return [f"  in the list but in no label, so not a class: {shown}"]
