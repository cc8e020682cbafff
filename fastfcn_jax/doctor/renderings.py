"""Chooses among several labels of one photograph: class numbers rather than objects or colours."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from fastfcn_jax.doctor import words
from fastfcn_jax.doctor.pairs import Match
from fastfcn_jax.errors import UserError


def choose(
    matches: Sequence[Match], is_color: Callable[[Path], bool]
) -> tuple[list[Match], list[str]]:
    """One label for each photograph, and a line for every rendering that is not used.

    A rendering that loses to another by its name (`SegmentationObject` to `SegmentationClass`) or
    because it holds colours and the other numbers is left out for all photographs, even those
    without another label. Between equal renderings, a label with the photograph's exact name wins.

    Raises:
      UserError: two labels fit one photograph equally well.
    """
    by_photo = defaultdict(list)
    for match in matches:
        by_photo[match.photo].append(match)
    ranks = _ranks(by_photo.values(), is_color)
    beaten: dict[str, str] = {}
    for found in by_photo.values():
        best = min(found, key=lambda m: ranks[m.rendering])
        for other in found:
            if ranks[other.rendering] > ranks[best.rendering]:
                beaten.setdefault(other.rendering, best.rendering)
    chosen = []
    for found in by_photo.values():
        left = [m for m in found if m.rendering not in beaten]
        left = [m for m in left if m.is_exact] or left
        if len(left) > 1:
            raise UserError(
                f"{left[0].photo}: {left[0].label} and {left[1].label} could be its label; remove "
                "one of them, or give the folder of the labels with --labels."
            )
        chosen += left
    lines = [
        f"  labels are taken from {winner}, not from {loser} (--labels DIR for others)"
        for loser, winner in sorted(beaten.items())
    ]
    return chosen, lines


def _ranks(groups, is_color: Callable[[Path], bool]) -> dict[str, tuple[int, bool]]:
    """Each rendering's rank by its name, and whether it is in colour if it competes with others."""
    examples: dict[str, Path] = {}
    competing = set()
    for found in groups:
        for match in found:
            examples.setdefault(match.rendering, match.label)
        names = {m.rendering for m in found}
        competing |= names if len(names) > 1 else set()
    return {
        name: (words.rank(name), name in competing and is_color(label))
        for name, label in examples.items()
    }
