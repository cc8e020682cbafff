"""Exports a checkpoint folder as one file, after comparing the file's outputs with the source's."""

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from fastfcn_jax import files
from fastfcn_jax.config import experiment
from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError

TOLERANCE = 1e-4  # of the largest logit: rounding in another order, with a margin

EQUAL_LABELS = 0.999  # where two classes tie within rounding, either may win


class Check(NamedTuple):
    """Result of comparing a file with its source."""

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


class Export(NamedTuple):
    """A written file's comparison with its source, and what was exported."""

    check: Check
    job: Any  # writers.Job


def export(
    folder: str | Path,
    output: str | Path,
    size: tuple[int, int],
    file_format: str,
    image: str | Path | None = None,
    *,
    licence: str | None = None,
) -> Export:
    """Writes `output`, compares it with its source on a photograph, and keeps it if they agree.

    Args:
      folder: checkpoint folder, or the name of published weights.
      size: height and width of the program's input.
      file_format: "stablehlo", "onnx", "safetensors" or "tflite".
      image: photograph for the comparison, scaled to `size`; None: a generated street scene.
      licence: of the weights, stored in the file; None: that of the published weights, if known.

    Raises:
      UserError: the checkpoint does not exist, a package is missing, or the file disagrees with
        its source.
    """
    from fastfcn_jax import models
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.export import metadata, writers
    from fastfcn_jax.weights import store

    output = Path(output).expanduser()
    licence = licence or store.licence(folder)
    if output.suffix != f".{file_format}":
        raise UserError(f"--output {output}: the name has to end in .{file_format}.")
    files.refuse_existing(output)
    folder = store.checkpoint(folder)
    loaded = model_folder.load_model(folder)
    scaling, pixel = models.scaling(loaded.config.data), pixel_type.of(loaded.config.data)
    photograph, name = _photograph(size, _path(image), scaling, pixel)
    loaded.config.model.update(precision="float32", auxiliary=False)
    num_classes = len(loaded.info.class_names)
    model = models.build(loaded.config.model, num_classes)
    variables = _without_auxiliary(loaded.variables)
    job = writers.Job(model, variables, num_classes, size, scaling, pixel)
    card = model_folder.read_card(folder)
    card |= {"config": experiment.without_paths(experiment.to_json(loaded.config))}
    write = writers.WRITERS[file_format]
    with files.replacing(output) as partial:
        write(job, partial, metadata.write(card, size, {}, licence=licence))
        check = compare(job, partial, photograph, name)
        if not check.is_good:
            raise UserError(f"{output} is not written, as it disagrees with its source: {check}.")
        partial.unlink()
        write(job, partial, metadata.write(card, size, check._asdict(), licence=licence))
    return Export(check, job)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def compare(job, path: Path, photograph: Num[np.ndarray, "h w c"], name: str) -> Check:
    """Runs the file, and its source without folding, on one image."""
    import jax

    from fastfcn_jax.export import readers

    source = jax.jit(lambda variables, images: job.forward(variables, images, folded=False))
    wanted = jax.tree.map(np.asarray, source(job.variables, photograph[None]))
    got = readers.load(path).run(photograph[None])
    return Check(
        image=name,
        largest_difference=float(np.abs(got["logits"] - wanted["logits"]).max()),
        largest_logit=float(np.abs(wanted["logits"]).max()),
        equal_labels=float((got["labels"] == wanted["labels"]).mean()),
    )


def speed(job, path: Path, rounds: int = 5) -> str:
    """A line comparing the speed of the file and of our own inference, timed alternately."""
    import jax

    from fastfcn_jax.export import readers
    from fastfcn_jax.models import folding

    images = _photograph(job.size, None, job.scaling, job.pixel)[0][None]
    variables = jax.device_put(folding.fold(job.variables))
    own = jax.jit(job.forward)
    runners = {"file": readers.load(path).run, "ours": lambda x: own(variables, x)}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for round_number in range(rounds + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            jax.block_until_ready(run(images))
            if round_number:  # the first round compiles
                seconds[name].append(time.perf_counter() - start)
    file, ours = (statistics.median(seconds[name]) for name in ("file", "ours"))
    return (
        f"one image, median of {rounds}: the file {file:.3f} s, our own inference {ours:.3f} s: "
        f"{ours / file:.2f} times as fast"
    )


def _without_auxiliary(variables: dict[str, Any]) -> dict[str, Any]:
    """Removes the auxiliary head, which prediction does not use."""
    return {
        collection: {part: value for part, value in tree.items() if part != "auxiliary_head"}
        for collection, tree in variables.items()
    }


def _photograph(size: tuple[int, int], image: Path | None, scaling, pixel: PixelType):
    """A photograph of the program's size: the given one, scaled, or a generated street scene."""
    from fastfcn_jax.data import rasters
    from fastfcn_jax.inference.rescale import resize_image

    if image is None:
        return _scene(size, scaling, pixel)
    try:
        data = image.read_bytes()
    except OSError as error:
        raise UserError(f"--image {image}: cannot be read ({error.strerror}).") from error
    return resize_image(rasters.image(data, str(image), pixel), size), image.name


def _scene(size: tuple[int, int], scaling, pixel: PixelType):
    """A generated street scene; for other kinds of images its colours in the range of theirs."""
    from fastfcn_jax.data.datasets import street_scene

    drawn = street_scene.Scene(np.random.default_rng(0), size).draw()[0]
    if pixel == RGB:
        return drawn, "drawn street scene"
    repeated = drawn[..., np.arange(pixel.channels) % 3].astype(np.float32)
    values = np.array(scaling.mean) + (repeated / 64 - 2) * np.array(scaling.std)
    if pixel.dtype != "float32":
        values = np.clip(np.round(values), 0, np.iinfo(pixel.dtype).max)
    return values.astype(pixel.dtype), "drawn street scene in the range of the images"
