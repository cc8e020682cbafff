"""The scores that need more than the confusion matrix, by the names of their flags."""

from collections.abc import Sequence

from fastfcn_jax.evaluation.boundaries import BoundaryIoU
from fastfcn_jax.evaluation.calibration import Calibration
from fastfcn_jax.evaluation.evaluate import Extra

EXTRAS = {"calibration": lambda names: Calibration(len(names)), "boundary": BoundaryIoU}


def build(chosen: Sequence[str], class_names: Sequence[str]) -> list[Extra]:
    """The chosen scores, which have seen no image yet."""
    return [EXTRAS[name](class_names) for name in chosen]
