"""Collects a folder's files: photographs with their labels, unpaired files, lists, bad files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.data import listing, rasters
from fastfcn_jax.data.annotations import read as annotations
from fastfcn_jax.data.source import read_file
from fastfcn_jax.doctor import outlines, pairs, renderings, roles, stored_labels
from fastfcn_jax.doctor.bad_files import BadFile, counted
from fastfcn_jax.doctor.class_names import NameList
from fastfcn_jax.doctor.outlines import Draw, Outlined
from fastfcn_jax.doctor.stored_labels import Stored
from fastfcn_jax.errors import UserError

LABELS_FOLDER = "fastfcn_labels"
WRITTEN = ("classes.json", "train.txt", "val.txt", "fastfcn_config.py")
_TEXTS = (".txt", ".csv", ".names", ".json", ".yaml", ".xml", ".bak")


class Pair(NamedTuple):
    """A photograph and its label, relative to the folder; `draw` draws a label from outlines."""

    photo: Path
    label: Path
    draw: Draw | None = None

    @property
    def name(self) -> Path:
        """The file to name in messages: a file of outlines may hold many labels."""
        return self.label if self.draw is None else self.photo

    def stored(self, folder: Path) -> Stored:
        """The label as stored in its file, or as drawn.

        Raises:
          UserError: a file cannot be read, or outlines are for a photograph of another size.
        """
        if self.draw is None:
            return stored_labels.read(folder / self.label)
        photo = str(folder / self.photo)
        data = read_file(photo)
        pixel = rasters.stored_type(data, photo).pixel
        pixels = self.draw(rasters.size(data, photo, pixel))
        return Stored("grey", pixels, None, None, False)


class Collected(NamedTuple):
    """Result of `collect`; `names` are the classes of outlines, or None if labels are images."""

    pairs: list[Pair]
    photos: list[Path]
    texts: list[Path]
    bad: list[BadFile]
    lines: list[str]
    names: NameList | None = None


def collect(
    folder: Path,
    *,
    photos: str = "",
    labels: str = "",
    empty: bool = False,
    values: Mapping[str, int] | None = None,
) -> Collected:
    """Finds every photograph that has a label.

    Args:
      photos, labels: see `adopt.adopt`.
      empty, values: see `outlines.find`.

    Raises:
      UserError: there is no pair, or two files match one equally well.
    """
    files, unreadable = listing.below(folder)
    inside = [p.relative_to(folder) for p in files]
    inside = [p for p in inside if p.parts[0] != LABELS_FOLDER]
    pictures = [p for p in inside if p.suffix.lower() in listing.IMAGE_SUFFIXES]
    if not pictures:
        raise UserError(f"{folder}: no pictures in it; set --folder to the one with your photos.")
    others = [p for p in inside if p.suffix.lower() in annotations.SUFFIXES]
    others = [p for p in others if p.as_posix() not in WRITTEN]
    if labels:
        others = [p for p in others if roles.is_within(p, labels)]
    _refuse_empty_places(folder, pictures, photos, labels, others)
    texts = [p for p in inside if p.suffix.lower() in _TEXTS]
    last = _listed(unreadable, "left out: {}", "that cannot be read")
    found = None
    if not labels or any(roles.is_within(p, labels) for p in pictures):
        found = _paired(folder, pictures, photos, labels)
        if found.pairs:
            lines = [*found.lines, *_unread_outlines(folder, others), *last]
            return found._replace(texts=texts, lines=lines)
    own = [p for p in pictures if not photos or roles.is_within(p, photos)]
    drawn = outlines.find(folder, others, own, values=values, takes_empty=empty)
    if drawn is not None and drawn.draws:
        return _outlined(own, drawn, texts, last)
    if found is not None and found.bad:
        return found._replace(texts=texts, lines=[*found.lines, *last])
    raise UserError(_no_pairs(folder, pictures, found.photos if found else pictures))


def _paired(folder: Path, pictures: Sequence[Path], photos: str, labels: str) -> Collected:
    """Finds photographs and labels among the images, and pairs them."""
    found = roles.find_roles(folder, pictures, photos=photos, labels=labels)
    matches = pairs.match(found.photos, found.labels)
    chosen, lines = renderings.choose(matches, lambda p: _is_color(folder / p))
    together = sorted(Pair(m.photo, m.label) for m in chosen)
    taken = {p for pair in together for p in pair}
    beaten = {m.label for m in matches} - taken
    single = [p for p in [*found.photos, *found.labels] if p not in taken | beaten]
    lines = [
        f"{counted(len(together), 'photo')} with a label each",
        *lines,
        *_listed(single, "left out, without a partner: {}", "without a partner"),
    ]
    return Collected(together, found.photos, [], found.bad, lines)


def _outlined(photos: Sequence[Path], drawn: Outlined, texts, last: list[str]) -> Collected:
    """Pairs photographs with labels drawn from outlines."""
    together = [Pair(p, file, draw) for p, (file, draw) in sorted(drawn.draws.items())]
    single = [p for p in photos if p not in drawn.draws]
    lines = [
        f"{counted(len(together), 'photo')} with a label each",
        *drawn.lines,
        *_listed(single, "left out, without outlines: {}", "without outlines"),
        *last,
    ]
    return Collected(together, list(photos), texts, [], lines, drawn.names)


def _unread_outlines(folder: Path, candidates: Sequence[Path]) -> list[str]:
    """A line about the first file of outlines that is not used, as label images take precedence."""
    for path in candidates[:3]:
        try:
            found = annotations.read(folder / path)
        except UserError:
            continue
        if found is not None:
            return [f"  outlines in {path} are not used (--labels {path} uses them instead)"]
    return []


def _refuse_empty_places(folder: Path, pictures, photos: str, labels: str, candidates) -> None:
    for place, there in ((photos, pictures), (labels, [*pictures, *candidates])):
        if place and not any(roles.is_within(p, place) for p in there):
            raise UserError(
                f"{folder / place}: no pictures in it; --photos and --labels take a folder or a "
                "pattern such as 'masks/*_color.png', relative to --folder."
            )


def _is_color(path: Path) -> bool:
    try:
        return stored_labels.read(path).kind == "color"
    except UserError:
        return True


def _listed(items: Sequence, form: str, what: str) -> list[str]:
    lines = [f"  {form.format(item)}" for item in items[:5]]
    return lines + ([f"  ... and {len(items) - 5} more {what}"] if len(items) > 5 else [])


def _no_pairs(folder: Path, pictures: Sequence[Path], photos: Sequence[Path]) -> str:
    labels = len(pictures) - len(photos)
    if not photos or not labels:
        there, absent = ("photos", "labels") if photos else ("labels", "photos")
        return (
            f"{folder}: {len(photos) or labels} {there} and no {absent} in it; give with --photos "
            "and --labels the folders that they are in (a label is a PNG of few colours)."
        )
    return (
        f"{folder}: {len(photos)} photos and {labels} labels, but no two share a name; "
        "name each label, a PNG of few colours, like its photo (x.jpg and x.png or x_mask.png)."
    )
