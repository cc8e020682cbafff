"""Files of float32: written if their logits are those of the source up to rounding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Num

from fastfcn_jax.errors import UserError
from fastfcn_jax.export import check_picture, readers, writers
from fastfcn_jax.export.request import Request

TOLERANCE = 1e-4  # of the largest logit: rounding in another order, with a margin
EQUAL_LABELS = 0.999  # where two classes tie within rounding, either may win


class Check(NamedTuple):
    """Result of comparing a file with its source; at several sizes the worst."""

    image: str
    largest_difference: float
    largest_logit: float
    equal_labels: float  # share of the pixels

    @property
    def is_good(self) -> bool:
        agree = self.largest_difference <= TOLERANCE * self.largest_logit
        return agree and self.equal_labels >= EQUAL_LABELS

    def __str__(self) -> str:
        return (
            f"logits differ by {self.largest_difference:.1e} at most (largest logit "
            f"{self.largest_logit:.3g}), {100 * self.equal_labels:.3f} % of the labels are equal"
        )


def write(
    job: writers.Job, request: Request, partial: Path, describe: Callable[[dict[str, Any]], str]
) -> Check:
    """Writes the file and compares it with its source, at several sizes if it takes any.

    Args:
      partial: the file's temporary name.
      describe: makes the file's description, with a check in it.

    Raises:
      UserError: they disagree.
    """
    pictures = [
        check_picture.photograph(size, request.image, job.scaling, job.pixel)
        for size in request.sizes
    ]
    write = writers.WRITERS[request.file_format]
    write(job, partial, describe({}))
    checks = [compare(job, partial, *picture) for picture in pictures]
    for check in checks:
        if not check.is_good:
            raise UserError(
                f"{request.output} is not written, as it disagrees with its source: {check}."
            )
    check = max(checks, key=lambda check: check.largest_difference / check.largest_logit)
    compared = {"sizes": request.sizes} if request.size is None else {}
    partial.unlink()
    write(job, partial, describe({**check._asdict(), **compared}))
    return check


def compare(job: writers.Job, path: Path, photograph: Num[np.ndarray, "h w c"], name: str) -> Check:
    """Runs the file, and its source without folding, on one image."""
    source = jax.jit(lambda variables, images: job.forward(variables, images, folded=False))
    wanted = jax.tree.map(np.asarray, source(job.variables, photograph[None]))
    got = readers.load(path).run(photograph[None])
    return Check(
        image=name,
        largest_difference=float(np.abs(got["logits"] - wanted["logits"]).max()),
        largest_logit=float(np.abs(wanted["logits"]).max()),
        equal_labels=float((got["labels"] == wanted["labels"]).mean()),
    )
