"""How far a file of reduced precision agrees with float32: in labels, and in mIoU where it can."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import metrics
from fastfcn_jax.export import check_picture, metadata, readers, reduced, users_photographs, writers
from fastfcn_jax.export.exported import Exported
from fastfcn_jax.export.request import Request
from fastfcn_jax.export.users_photographs import Given, Photograph, Reader
from fastfcn_jax.terminal.progress import track


class Agreement(NamedTuple):
    """Result of predicting photographs in float32 and by the file, each at its own size.

    Attributes:
      photographs: how many were compared.
      calibrated_on: how many others int8 was calibrated on.
      equal_labels: share of the pixels, the mean over the photographs.
      lowest: the share in the worst photograph.
      miou_float32: in percent; None: the photographs have no labels.
      miou: of the file.
    """

    photographs: int
    calibrated_on: int
    equal_labels: float
    lowest: float
    miou_float32: float | None
    miou: float | None

    def __str__(self) -> str:
        plural = "" if self.photographs == 1 else "s"
        said = (
            f"{100 * self.equal_labels:.2f} % of the labels are those of float32 on "
            f"{self.photographs} photograph{plural} ({100 * self.lowest:.2f} % on the worst)"
        )
        if self.calibrated_on:
            said += f", calibrated on {self.calibrated_on}"
        if self.miou is None:
            return said
        return f"{said}; mIoU {self.miou_float32:.2f} in float32, {self.miou:.2f} in the file"


def photographs(request: Request, job: writers.Job, data: ConfigDict) -> Given:
    """The user's, or one photograph or drawing to compare on.

    Raises:
      UserError: as `users_photographs.find`.
    """
    if request.calibration is not None:
        calibrates = request.precision == "int8"
        return users_photographs.find(request.calibration, data, calibrates=calibrates)
    image, name = check_picture.photograph(request.sizes[0], request.image, job.scaling, job.pixel)
    return Given([], [lambda: Photograph(name, image)])


def write(
    job: writers.Job,
    request: Request,
    partial: Path,
    describe: Callable[[dict[str, Any]], str],
    given: Given,
) -> Agreement:
    """Writes the file and compares it with its source in float32.

    Args:
      partial: the file's temporary name.
      describe: makes the file's description, with a check in it.

    Raises:
      UserError: they agree on fewer labels than requested, or a package is missing.
    """
    forward = jax.jit(lambda variables, images: job.forward(variables, images, folded=False))
    variables = jax.device_put(job.variables)
    text = describe({})
    source = Exported(
        request.output, lambda images: forward(variables, images), metadata.read(text)
    )
    inputs = (source.input(read().image) for read in given.to_calibrate)
    save = reduced.MAKERS[request.file_format, request.precision](job, text, inputs)
    save(partial, text)
    calibrated_on = len(given.to_calibrate)
    found = measure(source, readers.load(partial), given.to_compare, calibrated_on=calibrated_on)
    if found.equal_labels < request.min_agreement:
        raise UserError(
            f"{request.output} is not written: {found}, and --min-agreement is "
            f"{request.min_agreement}; give more photographs, another --precision, or a lower "
            "--min-agreement."
        )
    partial.unlink()
    save(partial, describe(found._asdict()))
    return found


def measure(
    source: Exported, file: Exported, photographs: Sequence[Reader], *, calibrated_on: int
) -> Agreement:
    """Predicts every photograph by both.

    Args:
      source: the model in float32 at the same size, so that only the precision differs.

    Raises:
      UserError: a photograph cannot be read, or the file does not run.
    """
    classes = source.info.num_classes
    matrices, shares = np.zeros((2, classes, classes), np.int64), []
    labelled = True
    for read in track(photographs, len(photographs), "comparing"):
        photograph = read()
        wanted, found = source(photograph.image), file(photograph.image)
        shares.append(float((wanted == found).mean()))
        if photograph.label is None:
            labelled = False
            continue
        for matrix, labels in zip(matrices, (wanted, found), strict=True):
            matrix += metrics.confusion_matrix(photograph.label, labels, classes)
    scores = [metrics.scores(matrix).miou if labelled else None for matrix in matrices]
    return Agreement(
        len(shares), calibrated_on, float(np.mean(shares)), min(shares), scores[0], scores[1]
    )
