"""All that lies in a folder: photographs with their labels, what is left over, lists, bad files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.data import listing
from fastfcn_jax.doctor import pairs, renderings, roles, stored_labels
from fastfcn_jax.doctor.bad_files import BadFile, counted
from fastfcn_jax.errors import UserError

LABELS_FOLDER = "fastfcn_labels"
WRITTEN = ("classes.json", "train.txt", "val.txt", "fastfcn_config.py")
_TEXTS = (".txt", ".csv", ".names", ".json", ".yaml", ".xml", ".bak")


class Pair(NamedTuple):
    """A photograph and its label, relative to the folder."""

    photo: Path
    label: Path


class Collected(NamedTuple):
    pairs: list[Pair]
    photos: list[Path]
    texts: list[Path]
    bad: list[BadFile]
    lines: list[str]


def collect(folder: Path, *, photos: str = "", labels: str = "") -> Collected:
    """Finds every photograph that has a label.

    Raises:
      UserError: there is no pair, or two files could be the partner of one.
    """
    files, unreadable = listing.below(folder)
    inside = [p.relative_to(folder) for p in files]
    inside = [p for p in inside if p.parts[0] != LABELS_FOLDER]
    pictures = [p for p in inside if p.suffix.lower() in listing.IMAGE_SUFFIXES]
    if not pictures:
        raise UserError(f"{folder}: no pictures in it; set --folder to the one with your photos.")
    for place in filter(None, (photos, labels)):
        if not any(roles.is_within(p, place) for p in pictures):
            raise UserError(
                f"{folder / place}: no pictures in it; --photos and --labels take a folder or a "
                "pattern such as 'masks/*_color.png', as seen from --folder."
            )
    found = roles.find_roles(folder, pictures, photos=photos, labels=labels)
    matches = pairs.match(found.photos, found.labels)
    chosen, lines = renderings.choose(matches, lambda p: _is_color(folder / p))
    if not chosen and not found.bad:
        raise UserError(_no_pairs(folder, found.photos, found.labels))
    together = sorted(Pair(m.photo, m.label) for m in chosen)
    taken = {p for pair in together for p in pair}
    beaten = {m.label for m in matches} - taken
    single = [p for p in [*found.photos, *found.labels] if p not in taken | beaten]
    return Collected(
        together,
        found.photos,
        [p for p in inside if p.suffix.lower() in _TEXTS],
        found.bad,
        [
            f"{counted(len(together), 'photo')} with a label each",
            *lines,
            *_listed(single, "left out, without a partner: {}", "without a partner"),
            *_listed(unreadable, "left out: {}", "that cannot be read"),
        ],
    )


def _is_color(path: Path) -> bool:
    try:
        return stored_labels.read(path).kind == "color"
    except UserError:
        return True


def _listed(items: Sequence, form: str, what: str) -> list[str]:
    lines = [f"  {form.format(item)}" for item in items[:5]]
    return lines + ([f"  ... and {len(items) - 5} more {what}"] if len(items) > 5 else [])


def _no_pairs(folder: Path, photos: Sequence[Path], labels: Sequence[Path]) -> str:
    if not photos or not labels:
        there, absent = ("photos", "labels") if photos else ("labels", "photos")
        return (
            f"{folder}: {len(photos or labels)} {there} and no {absent} in it; say with --photos "
            "and --labels which folders they lie in (a label is a PNG of few colours)."
        )
    return (
        f"{folder}: {len(photos)} photos and {len(labels)} labels, but no two share a name; "
        "name each label, a PNG of few colours, like its photo (x.jpg and x.png or x_mask.png)."
    )
