"""Draws the labels of a folder's photographs from outlines of annotation programs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from fastfcn_jax.data.annotations import read, shapes
from fastfcn_jax.data.annotations.shapes import Annotations, Picture
from fastfcn_jax.doctor import pairs, words
from fastfcn_jax.doctor.bad_files import counted
from fastfcn_jax.doctor.class_names import Entry, NameList, is_void_name
from fastfcn_jax.errors import UserError

MAX_CLASSES = 254
BACKGROUNDS = {"background", "_background_", "__background__", "bg"}
Draw = Callable[[tuple[int, int]], np.ndarray]


class Outlined(NamedTuple):
    """Photograph -> the file with its outlines, and a function that draws its label."""

    draws: dict[Path, tuple[Path, Draw]]
    names: NameList
    lines: list[str]


def find(
    folder: Path,
    files: Sequence[Path],
    photos: Sequence[Path],
    *,
    values: Mapping[str, int] | None = None,
    takes_empty: bool = False,
) -> Outlined | None:
    """Reads outlines from files; None if no file has any.

    Args:
      files, photos: relative to `folder`.
      values: the numbers of the classes of a folder prepared earlier; None to number them.
      takes_empty: photographs without a shape become background instead of being left out.

    Raises:
      UserError: there are files of two programs, two files for one photograph, an unknown class,
        or a damaged file.
    """
    with ThreadPoolExecutor() as pool:
        found = dict(zip(files, pool.map(lambda f: read.read(folder / f), files), strict=True))
    found = {path: content for path, content in found.items() if content is not None}
    if not found:
        return None
    _refuse_two_programs(folder, found)
    names = _numbered(folder, found) if values is None else _known(found, values)
    place = {e.name: e.value for e in names.entries if e.value is not None}
    owners, absent, empty = _owners(found, photos)
    left = [p for p, (_, picture) in owners.items() if not picture.shapes and not takes_empty]
    draws = {
        photo: (file, _draw(folder, photo, file, picture, place, names.unlabelled or 0))
        for photo, (file, picture) in owners.items()
        if photo not in left
    }
    return Outlined(draws, names, _lines(found, absent, empty, takes_empty))


def _draw(folder: Path, photo: Path, file: Path, picture: Picture, place, background: int) -> Draw:
    def draw(size: tuple[int, int]) -> np.ndarray:
        if picture.size is not None and picture.size != size:
            (height, width), (h, w) = picture.size, size
            raise UserError(
                f"{folder / photo}: {w}x{h} pixels, but {folder / file} has outlines for a photo "
                f"of {width}x{height}; use the photo that was annotated."
            )
        return shapes.draw(picture, size, place, background)

    return draw


def _refuse_two_programs(folder: Path, found: Mapping[Path, Annotations]) -> None:
    first: dict[str, Path] = {}
    for path, content in found.items():
        first.setdefault(content.program, path)
    if len(first) > 1:
        (one, a), (other, b), *_ = first.items()
        raise UserError(
            f"{folder}: {a} holds outlines of {one} and {b} of {other}; choose with --labels which "
            "to read."
        )


def _owners(found: Mapping[Path, Annotations], photos: Sequence[Path]):
    """Photograph -> (file, its shapes); number of missing photographs; number without a shape."""
    by_name = defaultdict(list)
    for photo in photos:
        for key in {words.plain(photo.name), words.plain(photo.stem)}:
            by_name[key].append(photo)
    owners: dict[Path, tuple[Path, Picture]] = {}
    absent, empty = 0, 0
    for file, content in found.items():
        for picture in content.pictures:
            photo = _photo(picture.names, file, by_name)
            if photo is None:
                absent += 1
                continue
            empty += not picture.shapes
            if photo in owners:
                raise UserError(
                    f"{photo}: {owners[photo][0]} and {file} both have outlines; choose with "
                    "--labels which to read."
                )
            owners[photo] = file, picture
    return owners, absent, empty


def _photo(names: Sequence[str], file: Path, by_name: Mapping[str, list[Path]]) -> Path | None:
    """The photograph with one of these names; the nearest to the file, if several match."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        for key in (path.name, path.stem):
            candidates = by_name.get(words.plain(key), [])
            near = [(_agreeing(p, path), pairs.nearness(p.parent, file.parent)) for p in candidates]
            best = [p for p, n in zip(candidates, near, strict=True) if n == max(near)]
            if len(best) > 1:
                raise UserError(
                    f"{file}: {best[0]} and {best[1]} could both be its '{name}'; rename one, or "
                    "give the folder of the photographs with --photos."
                )
            if best:
                return best[0]
    return None


def _agreeing(photo: Path, named: PurePosixPath) -> int:
    """Number of equal trailing folders."""
    count = 0
    for a, b in zip(reversed(photo.parent.parts), reversed(named.parent.parts), strict=False):
        if words.plain(a) != words.plain(b):
            break
        count += 1
    return count


def _numbered(folder: Path, found: Mapping[Path, Annotations]) -> NameList:
    """Numbers the classes: 0 for what no shape covers, then in the order of the file."""
    listed = list(dict.fromkeys(c for content in found.values() for c in content.classes))
    if len(found) > 1:
        listed.sort()
    colors = {name: c for content in found.values() for name, c in content.colors.items()}
    background = next((n for n in listed if n.lower() in BACKGROUNDS), shapes.BACKGROUND)
    classes = [background, *(n for n in listed if n != background)]
    if len(classes) > MAX_CLASSES:
        raise UserError(f"{folder}: {len(classes)} classes of outlines; a label file can hold 254.")
    entries = [Entry(name, k, colors.get(name)) for k, name in enumerate(classes)]
    if any(e.color is None for e in entries[1:]):  # all or none have a colour
        entries = [e._replace(color=None) for e in entries]
    elif entries[0].color is None:
        entries[0] = entries[0]._replace(color=(0, 0, 0))
    return NameList(next(iter(found)), entries, unlabelled=0)


def _known(found: Mapping[Path, Annotations], values: Mapping[str, int]) -> NameList:
    """Numbers the classes as in classes.json; names such as "void" get the ignored value."""
    entries = []
    for file, content in found.items():
        for name in dict.fromkeys(s.name for p in content.pictures for s in p.shapes):
            value = values.get("" if is_void_name(name) else name)
            if value is None:
                raise UserError(
                    f"{file}: '{name}' is not a class of classes.json; rename it in one of the two."
                )
            entries.append(Entry(name, value))
    unlabelled = next((v for n, v in values.items() if n.lower() in BACKGROUNDS), values.get("", 0))
    return NameList(next(iter(found)), list(dict.fromkeys(entries)), unlabelled=unlabelled)


def _lines(found: Mapping[Path, Annotations], absent: int, empty: int, takes: bool) -> list[str]:
    (first, content), *others = found.items()
    more = f" and {len(others)} more" if others else ""
    lines = [f"  labels are drawn from the outlines of {content.program} in {first}{more}"]
    left_out = Counter()
    for content in found.values():
        left_out.update(content.left_out)
    lines += [f"  not drawn, as it is not an area: {what} ({n})" for what, n in left_out.items()]
    if absent:
        lines.append(f"  {counted(absent, 'photo')} of these files are not in the folder")
    if empty and takes:
        lines.append(f"  {counted(empty, 'photo')} without a shape: background, as --empty says")
    elif empty:
        lines.append(
            f"  left out, as no shape is drawn in them: {counted(empty, 'photo')} (--empty takes "
            "them to be background)"
        )
    return lines
