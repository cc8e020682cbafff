"""Reads classes.json and classes.yaml, with a clear message about anything invalid."""

import colorsys
import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from fastfcn_jax import text
from fastfcn_jax.data.source import DatasetInfo, LabelTable
from fastfcn_jax.errors import UserError

MAX_NAME = 100  # characters
MAX_BYTES = 1 << 20
_KEYS = {"name", "labels", "classes", "ignore"}
_CLASS_KEYS = {"name", "value", "color"}
_HEX = re.compile("#[0-9a-fA-F]{6}")

Color = tuple[int, int, int]


class Class(NamedTuple):
    """A class as written in the file; `values` or `colors` is empty if it gives none."""

    name: str
    values: tuple[int, ...]
    colors: tuple[Color, ...]


class ClassList(NamedTuple):
    """The whole file; `ignore` holds values, or colours if `is_color`."""

    info: DatasetInfo
    classes: tuple[Class, ...]
    ignore: tuple[Any, ...]
    is_color: bool

    @property
    def values(self) -> list[tuple[int, ...]]:
        """Stored values of each class; its position in the list if none is given."""
        return [c.values or (k,) for k, c in enumerate(self.classes)]


def file_of(base: Path) -> Path:
    """`classes.yaml` if there is one, else `classes.json`, which may be missing."""
    written = base / "classes.yaml"
    return written if written.is_file() else base / "classes.json"


def read(path: Path) -> ClassList:
    """Reads and checks classes.json or .yaml.

    Raises:
      UserError: the file is missing or invalid.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; write the class names there (see docs/datasets.md).")
    content = _parsed(path)
    try:
        return _checked(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}.") from error


def _parsed(path: Path) -> Any:
    """The file's content. UserError if it is not JSON or YAML."""
    written = text.read(path)
    if len(written) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB; is it a list of classes?")
    try:
        if path.suffix == ".yaml":
            return yaml.load(written, _Loader)
        return json.loads(written, object_pairs_hook=_without_repeats)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f'{path}: expected {{"classes": [{{"name": ...}}, ...]}} ({reason}).'
        ) from error


def _checked(content: Any) -> ClassList:
    """Raises ValueError (its message has no full stop) if something is invalid."""
    if not isinstance(content, dict) or "classes" not in content:
        raise ValueError('expected {"classes": [{"name": ...}, ...]}')
    _refuse_unknown(content, _KEYS, "the file")
    kind = content.get("labels", "index")
    if kind not in ("index", "color"):
        raise ValueError(f'"labels" is "index" or "color", not {_quoted(kind)}')
    is_color = kind == "color"
    classes = tuple(_class(entry) for entry in _entries(content["classes"], is_color))
    if not 0 < len(classes) <= LabelTable.UNKNOWN:
        raise ValueError(f"{len(classes)} classes; a label file can hold 1 to 254")
    _refuse_equal_names(classes)
    ignore = _list(content.get("ignore", []), is_color)
    if is_color:
        ignored = tuple(_color(x) for x in ignore)
        if not all(c.colors for c in classes):
            raise ValueError('with "labels": "color" every class needs its "color"')
        if any(c.values for c in classes):
            raise ValueError('"value" belongs to "labels": "index"; remove it, or "labels"')
        colors = [color for c in classes for color in c.colors]
        _refuse_repeats([*colors, *dict.fromkeys(ignored)], "a colour")
    else:
        ignored = tuple(_value(x) for x in ignore)
        values = [v for k, c in enumerate(classes) for v in c.values or (k,)]
        _refuse_repeats([*values, *dict.fromkeys(ignored)], "a label value")
    palette = [c.colors[0] if c.colors else distinct_color(k) for k, c in enumerate(classes)]
    name = _name(content.get("name", "folder"), "the data set")
    if not re.fullmatch(r"[\w .+-]*\w[\w .+-]*", name):  # part of the cache's folder name
        raise ValueError(f'"name": {_quoted(name)} may have only letters, digits and " .+-_"')
    names = tuple(c.name for c in classes)
    stored = tuple((c.colors if is_color else c.values or (k,))[0] for k, c in enumerate(classes))
    info = DatasetInfo(name, names, np.array(palette, np.uint8), stored)
    return ClassList(info, classes, ignored, is_color)


def _entries(classes: Any, is_color: bool) -> list[dict]:
    """One {"name", "value", "color"} per class, from a list or a mapping in either direction."""
    if isinstance(classes, list):
        return [entry if isinstance(entry, dict) else {"name": entry} for entry in classes]
    if not isinstance(classes, dict):
        raise ValueError(f'expected a list under "classes", not {_quoted(classes)}')
    by_value = all(isinstance(k, int) or (isinstance(k, str) and k.isdecimal()) for k in classes)
    if by_value and all(isinstance(v, str) for v in classes.values()):
        entries = [{"name": name, "value": int(key)} for key, name in classes.items()]
    elif by_value:
        raise ValueError('"classes" maps numbers to something other than names; write a list')
    else:
        key = "color" if is_color else "value"
        entries = [
            {"name": name, **(given if isinstance(given, dict) else {key: given})}
            for name, given in classes.items()
        ]
        if any("name" in given for given in classes.values() if isinstance(given, dict)):
            raise ValueError('"classes" gives a class two names; write a list')
    if not is_color and all(isinstance(entry.get("value"), int) for entry in entries):
        entries.sort(key=lambda entry: entry["value"])
    return entries


def _class(entry: dict) -> Class:
    if "name" not in entry:
        raise ValueError(f'expected "name" in each class, not {_quoted(entry)}')
    name = _name(entry["name"], "a class")
    _refuse_unknown(entry, _CLASS_KEYS, f'class "{name}"')
    empty = [key for key in ("value", "color") if entry.get(key) == []]
    if empty:
        raise ValueError(f'class "{name}" has an empty "{empty[0]}"; remove it, or fill it in')
    values = tuple(_value(x) for x in _list(entry.get("value", []), False))
    return Class(name, values, tuple(_color(x) for x in _list(entry.get("color", []), True)))


def _name(name: Any, whose: str) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{_quoted(name)} is not a name for {whose}; put it in quotes")
    if not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(
            f"{_quoted(name)} is not a name for {whose}: use 1 to {MAX_NAME} characters in one line"
        )
    return name


def _list(given: Any, of_colors: bool) -> list:
    """One or several values (or colours) as a list."""
    if not isinstance(given, list):
        return [given]
    is_one_color = of_colors and given and not isinstance(given[0], list | str)
    return [given] if is_one_color else given


def _value(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise ValueError(
            "each class's value, and those to ignore, are integers 0..255, not " + _quoted(value)
        )
    return value


def _color(color: Any) -> Color:
    if isinstance(color, str) and _HEX.fullmatch(color):
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    if isinstance(color, list) and [type(c) for c in color] == [int] * 3:
        red, green, blue = color
        if min(color) >= 0 and max(color) <= 255:
            return red, green, blue
    raise ValueError(
        f'a colour is [red, green, blue] of integers 0..255 or "#rrggbb", not {_quoted(color)}'
    )


def _refuse_unknown(found: dict, known: set[str], where: str) -> None:
    unknown = [key for key in found if key not in known]
    if unknown:
        raise ValueError(
            f"{_quoted(unknown[0])} in {where} is unknown; possible are {', '.join(sorted(known))}"
        )


def _refuse_equal_names(classes: tuple[Class, ...]) -> None:
    names = [c.name for c in classes]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ValueError(
            f'two classes are called "{twice}"; give each a name of its own, or one class several '
            'values, as "value": [0, 1]'
        )


def _refuse_repeats(stored: list, what: str) -> None:
    twice = next((x for x in stored if stored.count(x) > 1), None)
    if twice is not None:
        raise ValueError(f"{what}, {twice}, stands for two classes, or is ignored as well")


def _quoted(content: Any) -> str:
    """Part of a file's content as JSON, shortened for a message."""
    written = json.dumps(content, ensure_ascii=False, default=str, skipkeys=True)
    return written if len(written) <= 60 else f"{written[:57]}..."


def _without_repeats(pairs: list[tuple[Hashable, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{_quoted(twice)} occurs twice")
    return found


class _Loader(yaml.SafeLoader):
    """Refuses aliases, since a few lines of them expand to gigabytes, and repeated keys."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        pairs = [(self.construct_object(key, deep=True), None) for key, _ in node.value]
        if all(isinstance(key, Hashable) for key, _ in pairs):
            _without_repeats(pairs)
        return super().construct_mapping(node, deep=deep)


def distinct_color(k: int) -> Color:
    """Colour of class k if the file gives none: steps of the golden angle around the wheel."""
    rgb = colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.75 - 0.25 * (k % 2), 0.95 - 0.3 * (k % 3 == 2))
    red, green, blue = (round(255 * c) for c in rgb)
    return red, green, blue
