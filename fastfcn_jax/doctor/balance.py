"""Advice for classes of few pixels: class weights, or a loss in which every class counts once."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from fastfcn_jax.doctor.checks import Finding

RARE = 0.01  # share of the labelled pixels below which a class needs weights
# ENet's weights end at 1 / ln 1.02 = 50: with them, a class of this share weighs 4 % of one that
# has half the pixels, and a class of the share above 28 %.
TOO_RARE = 0.001
WEIGHTS = "--config.loss.class_weights='(\"auto\",)'"
TERMS = '--config.loss.terms=\'("cross_entropy", "class_dice")\''


def advise(names: Sequence[str], counts: Sequence[int]) -> list[Finding]:
    """A note, with the setting to paste, if a class that occurs has few of the labelled pixels.

    Args:
      counts: labelled pixels of each class.
    """
    total = sum(counts)
    present = [(count / total, name) for name, count in zip(names, counts, strict=True) if count]
    rare = [(share, name) for share, name in present if share < RARE]
    if not rare or len(present) < 2:
        return []
    share, name = min(rare)
    text = f"class '{name}' has {100 * share:.2g} % of the labelled pixels"
    if len(rare) > 1:
        text += f", {len(rare)} classes less than {100 * RARE:g} % each"
    if share < TOO_RARE:
        return [Finding("note", f"{text}; a Dice term counts each class once:", TERMS)]
    return [Finding("note", f"{text}; weights make up for it:", WEIGHTS)]


def findings(config: ConfigDict, names: Sequence[str], counts: Sequence[int]) -> list[Finding]:
    """The same for an experiment; none if its loss was already chosen."""
    chosen = config.loss.class_weights or tuple(config.loss.terms) != ("cross_entropy",)
    return [] if chosen else advise(names, counts)
