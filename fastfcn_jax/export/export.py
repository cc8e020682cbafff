"""Exports a checkpoint folder as one file, after comparing the file's outputs with the source's."""

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from fastfcn_jax import files
from fastfcn_jax.config import experiment
from fastfcn_jax.data import pixel_type
from fastfcn_jax.export.request import FREE_SIZES, MIN_AGREEMENT, Request


class Export(NamedTuple):
    """A written file's comparison with its source, and what was exported."""

    check: Any  # exact.Check, or of reduced precision agreement.Agreement
    job: Any  # writers.Job


def export(
    folder: str | Path,
    output: str | Path,
    size: tuple[int, int] | None,
    file_format: str,
    image: str | Path | None = None,
    *,
    licence: str | None = None,
    precision: str = "float32",
    calibration: str | Path | None = None,
    min_agreement: float = MIN_AGREEMENT,
) -> Export:
    """Writes `output`, compares it with its source on photographs, and keeps it if they agree.

    Args:
      folder: checkpoint folder, or the name of published weights.
      size: height and width of the program's input; None: any (ONNX and OpenVINO).
      file_format: "stablehlo", "onnx", "openvino", "safetensors" or "tflite".
      image: photograph for the comparison, scaled to `size`; None: a generated street scene.
      licence: of the weights, stored in the file; None: that of the published weights, if known.
      precision: "float32"; ONNX: "float16" or "int8", OpenVINO: "bf16" or "int8".
      calibration: folder of photographs that int8 is calibrated on, and a file of reduced
        precision is compared on; or the root of the model's data set, with labels.
      min_agreement: share of the labels of such a file that must be those of float32, 0 to 1.

    Raises:
      UserError: the checkpoint does not exist, a package is missing, or the file disagrees with
        its source.
    """
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.export import agreement, exact, metadata
    from fastfcn_jax.weights import store

    licence = licence or store.licence(folder)
    request = Request(
        *(_path(output), size, file_format, _path(image), precision, _path(calibration)),
        min_agreement,
    )
    folder = store.checkpoint(folder)
    job, config = _job(folder, size)
    card = model_folder.read_card(folder)
    card |= {"config": experiment.without_paths(experiment.to_json(config))}

    def describe(check: dict[str, Any]) -> str:
        return metadata.write(card, size, check, licence=licence, precision=precision)

    with files.replacing(request.output, beside=request.beside) as partial:
        if precision == "float32":
            return Export(exact.write(job, request, partial, describe), job)
        photographs = agreement.photographs(request, job, config.data)
        return Export(agreement.write(job, request, partial, describe, photographs), job)


def _job(folder: Path, size: tuple[int, int] | None):
    """What to export, and its configuration."""
    from fastfcn_jax import models
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.export import writers

    loaded = model_folder.load_model(folder)
    loaded.config.model.update(precision="float32", auxiliary=False)
    num_classes = len(loaded.info.class_names)
    model = models.build(loaded.config.model, num_classes)
    variables = _without_auxiliary(loaded.variables)
    scaling, pixel = models.scaling(loaded.config.data), pixel_type.of(loaded.config.data)
    return writers.Job(model, variables, num_classes, size, scaling, pixel), loaded.config


def speed(job, path: Path, rounds: int = 5) -> str:
    """A line comparing the speed of the file and of our own inference, timed alternately."""
    import jax

    from fastfcn_jax.export import check_picture, readers
    from fastfcn_jax.models import folding

    size = job.size or FREE_SIZES[0]
    images = check_picture.photograph(size, None, job.scaling, job.pixel)[0][None]
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


def _path(given: str | Path | None) -> Any:
    return None if given is None else Path(given).expanduser()
