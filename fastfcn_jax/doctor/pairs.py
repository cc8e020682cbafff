"""Pairs photographs with labels by their names and folders."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.doctor import words
from fastfcn_jax.errors import UserError


class Match(NamedTuple):
    """A label and its photograph, relative to the folder.

    rendering: the label's folder and the pattern of its name, which are the same for all labels of
    one kind; is_exact: the two have the same name.
    """

    photo: Path
    label: Path
    rendering: str
    is_exact: bool


def match(photos: Sequence[Path], labels: Sequence[Path]) -> list[Match]:
    """Finds the photograph of each label, if it has one.

    Whole names are compared first. Suffixes and prefixes that say what an image is (`_mask`,
    `_sat`, `image_`) are removed from a label only if no photograph has the whole name, and from
    photographs last. If names repeat in several folders, each folder of labels is matched with the
    nearest folder of photographs.

    Raises:
      UserError: two photographs fit one label equally well.
    """
    names = _Names(photos)
    places = _Places(photos, labels)
    found = []
    for label in labels:
        key, is_exact, candidates = names.find(label)
        candidates = places.nearest(label, candidates)
        if len(candidates) > 1:
            raise UserError(
                f"{label}: {candidates[0]} and {candidates[1]} could be its photograph; rename or "
                "remove one of them, or give the folder of the photographs with --photos."
            )
        if candidates:
            found.append(
                Match(candidates[0], label, _rendering(candidates[0], label, key), is_exact)
            )
    return found


class _Names:
    """Photographs by name, and by name without words such as `image`."""

    def __init__(self, photos: Sequence[Path]):
        self.exact, self.loose = defaultdict(list), defaultdict(list)
        for photo in photos:
            own, *others = words.photo_keys(photo)
            self.exact[own].append(photo)
            self.exact[words.plain(photo.name)].append(photo)  # for a label named x.jpg.png
            for key in others:
                self.loose[key].append(photo)

    def find(self, label: Path) -> tuple[str, bool, list[Path]]:
        """The name that matches, whether it is the label's whole name, and its photographs."""
        keys = words.label_keys(label)
        for named in (self.exact, self.loose):
            for key in keys:
                if key in named:
                    same = [p for p in named[key] if p.stem == label.stem]
                    return key, named is self.exact and key == keys[0], same or named[key]
        return keys[0], False, []


class _Places:
    """How close folders of photographs and of labels are to each other."""

    def __init__(self, photos: Sequence[Path], labels: Sequence[Path]):
        self.photo_folders = {p.parent for p in photos}
        self.label_folders = defaultdict(set)
        self.best_photos: dict[Path, tuple[int, int, int]] = {}
        self.best_labels: dict[tuple[Path, str], tuple[int, int, int]] = {}
        for label in labels:
            self.label_folders[_role(label.parent)].add(label.parent)
        named = Counter(words.plain(p.stem) for p in photos)
        named_labels = Counter((_role(p.parent), words.plain(p.stem)) for p in labels)
        self.repeat = any(n > 1 for n in [*named.values(), *named_labels.values()])

    def nearest(self, label: Path, candidates: list[Path]) -> list[Path]:
        part = words.part(label)
        fitting = [p for p in candidates if not part or words.part(p) in ("", part)]
        if self.repeat:
            fitting = [p for p in fitting if self._are_neighbours(p.parent, label.parent)]
        if not fitting:
            return []
        best = max(nearness(p.parent, label.parent) for p in fitting)
        return [p for p in fitting if nearness(p.parent, label.parent) == best]

    def _are_neighbours(self, photos: Path, labels: Path) -> bool:
        """Neither has a nearer one; otherwise a photograph could get the label of another scene."""
        if labels not in self.best_photos:
            self.best_photos[labels] = max(nearness(p, labels) for p in self.photo_folders)
        role = _role(labels)
        if (photos, role) not in self.best_labels:
            own = (nearness(photos, p) for p in self.label_folders[role])
            self.best_labels[photos, role] = max(own)
        best = self.best_photos[labels], self.best_labels[photos, role]
        return best == (nearness(photos, labels),) * 2


def _scene(folder: Path) -> list[str]:
    """The parts of a path that identify a scene, without those like `labels` or `images`."""
    parts = ((words.SPLITS.get(p.lower()), p) for p in folder.parts)
    return [split or words.plain(p) for split, p in parts if split or words.says_label(p) is None]


def _role(folder: Path) -> str:
    """The parts of a path like `labels` or `images`."""
    said = [p for p in folder.parts if words.says_label(p) is not None]
    return "/".join(said)


@lru_cache(maxsize=1 << 16)
def nearness(photos: Path, labels: Path) -> tuple[int, int, int]:
    """Number of shared parts, of different parts (negative), and of common leading parts."""
    ours, theirs = Counter(_scene(photos)), Counter(_scene(labels))
    shared = (ours & theirs).total()
    way = 0
    for a, b in zip(photos.parts, labels.parts, strict=False):
        if a != b:
            break
        way += 1
    return shared, 2 * shared - ours.total() - theirs.total(), way


def _rendering(photo: Path, label: Path, key: str) -> str:
    """`SegmentationClass/*`, `gtFine/*_color`: the label's own folders and its name's words."""
    stem = words.plain(label.stem)
    start = stem.find(key)
    pattern = f"{stem[:start]}*{stem[start + len(key) :]}"
    shared = set(_scene(photo.parent))
    own = [p for p in label.parent.parts if not shared.intersection(_scene(Path(p)))]
    return "/".join([*own, pattern])
