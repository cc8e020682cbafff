"""Reads lists of classes: their names, and the values or colours that labels use for them."""

import csv
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastfcn_jax import text
from fastfcn_jax.doctor import text_files, words
from fastfcn_jax.doctor.stored_labels import Value
from fastfcn_jax.errors import UserError

SUFFIXES = (".txt", ".csv", ".names", ".json")
# Names that mean "no class".
IGNORED = {"void", "unlabeled", "unlabelled", "ignore", "ignored", "__ignore__", "dontcare"}
_BY_LINES = re.compile(r"(.*[-_. ])?(class(es)?|labels?|names|categories|label_?map)([-_. ].*)?")
_LARGEST = 1 << 20
_CVAT = re.compile(r"(.+?):(\d+),(\d+),(\d+):[^:]*:[^:]*")
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_TRIPLE = re.compile(r"[(\[]?\s*(\d+)[,; ]\s*(\d+)[,; ]\s*(\d+)\s*[)\]]?")


class Entry(NamedTuple):
    """One class of a list; what the list does not give is None."""

    name: str
    value: int | None = None
    color: tuple[int, int, int] | None = None


class NameList(NamedTuple):
    """A list of classes: its file, relative to the folder, and its entries.

    unlabelled: the value of pixels that no outline covers, if labels are drawn from outlines.
    """

    path: Path
    entries: list[Entry]
    unlabelled: int | None = None

    def entry(self, value: Value) -> Entry | None:
        """The class of a label value; a number also matches the grey colour of that brightness."""
        for e in self.entries:
            if value == (e.value if isinstance(value, int) else e.color):
                return e
        if isinstance(value, int):
            greys = (e for e in self.entries if e.value is None)
            return next((e for e in greys if e.color == (value,) * 3), None)
        return None

    def is_void(self, value: Value) -> bool:
        found = self.entry(value)
        return found is not None and is_void_name(found.name)


def is_void_name(name: str) -> bool:
    """Whether this class name means "not labelled"."""
    return re.sub(r"[\s'’-]", "", name.lower()) in IGNORED


def find(
    folder: Path, texts: Sequence[Path], values: Collection[Value], *, named: str = ""
) -> tuple[NameList | None, list[str]]:
    """Finds the list of classes that names most of the values; also returns lines about it.

    Args:
      texts: files relative to `folder` that may be lists.
      values: the numbers or colours that occur in the labels.
      named: the list to use, "none" for no list, or "" to detect it.

    Raises:
      UserError: the file `named` is not a list of classes.
    """
    if named == "none":
        return None, []
    if named:
        path = Path(named) if Path(named).is_file() else folder / named
        text.read(path)  # raises UserError if it cannot be read
        found = _read(path, path, values, certain=True)
        if found is None:
            raise UserError(
                f"{path}: not a list of classes; write lines 'value name' or 'r g b name'."
            )
        return found, [f"  names from {path}, as --names says"]
    best, best_share = None, 0.0
    for path in sorted(texts, key=lambda p: (len(p.parts), p)):
        found = _read(folder / path, path, values, certain=False)
        share = 0.0 if found is None else _share(found, values)
        if share > best_share:
            best, best_share = found, share
    if best is not None and best_share >= 0.5:
        return best, [f"  names from {best.path} (--names FILE for another list, or none)"]
    return None, [line for path in texts if (line := _why_unread(folder, path))]


def _why_unread(folder: Path, path: Path) -> str:
    """A line about a file named like a list of classes that is not readable text."""
    if not _BY_LINES.fullmatch(path.stem.lower()):
        return ""
    try:
        text.read(folder / path)
    except UserError as error:
        return f"  no names from {str(error).rstrip('.')}"
    return ""


def _share(found: NameList, values: Collection[Value]) -> float:
    return sum(found.entry(v) is not None for v in values) / max(len(values), 1)


def _read(path: Path, shown: Path, values: Collection[Value], *, certain: bool) -> NameList | None:
    """The entries of a file, if nearly all of its lines are entries."""
    if path.suffix.lower() == ".json":
        entries = _of_json(path) if path.stat().st_size <= _LARGEST else []
    else:
        if path.stat().st_size > _LARGEST:
            return None
        lines = [x for x in text_files.lines(path) if not x.startswith("#") or _HEX.match(x)]
        by_lines = certain or _BY_LINES.fullmatch(path.stem.lower()) is not None
        entries = _of_rows(lines) or (_of_lines(lines, values) if by_lines else [])
    return NameList(shown, entries) if len(entries) > 1 or (certain and entries) else None


def _of_rows(lines: list[str]) -> list[Entry]:
    """Entries from lines with a value or colour and a name; a header line is skipped."""
    if not lines:
        return []
    delimiter = next((d for d in "\t;," if all(d in x for x in lines)), "")
    found = [_entry(line, delimiter) for line in lines]
    if found[0] is None:
        found = found[1:]
    entries = [e for e in found if e is not None]
    keys = [e.color or e.value for e in entries]
    is_list = len(entries) >= 0.9 * len(found) and len(set(keys)) == len(keys)
    return entries if is_list else []


def _entry(line: str, delimiter: str) -> Entry | None:
    if match := _CVAT.fullmatch(line):
        return _checked(match[1], [*map(int, match.groups()[1:])])
    if match := re.fullmatch(r"(\d+)\s*[:=]\s*(.+)", line):
        return _checked(_unquoted(match[2]), [int(match[1])])
    if match := re.fullmatch(r"(.+?)\s*[:=]\s*(\d+)", line):
        return _checked(_unquoted(match[1]), [int(match[2])])
    if not delimiter:
        return _of_blanks(line.split())
    fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    numbers: list[int] = []
    texts: list[str] = []
    for field in filter(None, map(str.strip, fields)):
        if field.isdigit():
            numbers.append(int(field))
        elif color := _color(field):
            numbers += color
        else:
            texts.append(field)
    return _checked(texts[0], numbers) if len(texts) == 1 else None


def _of_blanks(fields: list[str]) -> Entry | None:
    """`r g b some name`, `value name`, `value r g b name`, `#rrggbb name`; or the name first."""
    color = _color(fields[0]) if fields[0].startswith("#") else None
    if color:
        return _checked(" ".join(fields[1:]), list(color))
    first = next((i for i, f in enumerate(fields) if not f.isdigit()), len(fields))
    if first in (1, 3, 4):
        return _checked(" ".join(fields[first:]), [*map(int, fields[:first])])
    last = next((i for i, f in enumerate(reversed(fields)) if not f.isdigit()), len(fields))
    count = 3 if last > 3 else last
    if first == 0 and count in (1, 3):
        return _checked(" ".join(fields[:-count]), [*map(int, fields[-count:])])
    return None


def _checked(name: str, numbers: list[int]) -> Entry | None:
    """An entry from a value, a colour (three numbers), or a value and its colour."""
    if not name.strip() or not all(n < 256 for n in numbers):
        return None
    if len(numbers) == 1:
        return Entry(name.strip(), numbers[0])
    if len(numbers) in (3, 4):
        *value, red, green, blue = numbers
        return Entry(name.strip(), value[0] if value else None, (red, green, blue))
    return None


def _color(field: str) -> tuple[int, int, int] | None:
    if match := _HEX.fullmatch(field):
        code = int(match[1], 16)
        return code >> 16, code >> 8 & 255, code & 255
    if match := _TRIPLE.fullmatch(field):
        return int(match[1]), int(match[2]), int(match[3])
    return None


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'").strip()


def _of_lines(lines: list[str], values: Collection[Value]) -> list[Entry]:
    """One name per line, for labels that hold 0, 1, 2 ... (or 0 and 255 if there are two names)."""
    numbers = sorted(v for v in values if isinstance(v, int))
    names = [_unquoted(x) for x in lines]
    if len(numbers) < len(values) or any(n.isdigit() for n in names):
        return []
    entries = [Entry("void", 255)] if names and names[0] == "__ignore__" else []
    names = names[len(entries) :]
    if len(names) == len(numbers) == 2:
        return [Entry(n, v) for n, v in zip(names, numbers, strict=True)]
    largest = max((v for v in numbers if v != 255), default=0)
    if largest >= len(names) or len(names) > 254:
        return []
    return [Entry(name, k) for k, name in enumerate(names)] + entries


def _of_json(path: Path) -> list[Entry]:
    """`{name: [r, g, b]}`, `{value: name}`, or a list of objects with a name and a colour."""
    try:
        content: Any = json.loads(text.read(path))
    except (ValueError, UserError):
        return []
    listed = content.get("classes", content.get("labels")) if isinstance(content, dict) else content
    if isinstance(listed, list):
        found = [_of_object(item) for item in listed if isinstance(item, dict)]
    elif isinstance(content, dict):
        found = [_of_member(key, item) for key, item in content.items()]
    else:
        found = []
    return [entry for entry in found if entry is not None]


def _of_object(item: dict[str, Any]) -> Entry | None:
    name = item.get("title") or item.get("name") or item.get("label")
    value, color = item.get("value", item.get("id")), item.get("color")
    numbers = _bytes([value])
    numbers += _color(color) or () if isinstance(color, str) else _bytes(color)
    return _checked(name, numbers) if isinstance(name, str) else None


def _of_member(key: str, item: Any) -> Entry | None:
    if isinstance(item, str):
        return _checked(item, [int(key)]) if key.isdigit() else None
    return _checked(key, [item] if _is_byte(item) else _bytes(item))


def _bytes(item: Any) -> list[int]:
    return item if isinstance(item, list) and all(map(_is_byte, item)) else []


def _is_byte(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 256


def may_be_list(path: Path, photo_stems: Collection[str]) -> bool:
    """Whether a file may be a list of classes, judging by its file name."""
    own = path.name.lower().split(".")[0]
    return (
        path.suffix.lower() in SUFFIXES
        and own not in {*words.SPLITS, "trainval", "readme", "license", "requirements"}
        and words.plain(path.stem) not in photo_stems
    )
