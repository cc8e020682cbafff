"""Runs exported files: the same answers as `fastfcn_jax.load(DIR)`, from one file.

A file has one input size. A photograph of another size is scaled to fit into it, what is left over
is filled with the mean colour, and the scores are scaled back.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.predictor import Prediction
from fastfcn_jax.inference.resize import bilinear_matrix, resize_image

MEAN_COLOR = (124, 116, 104)  # normalises to about 0, which mmsegmentation pads with
BLOCK_ROWS = 64  # rows of the answer whose scores are in memory at once


class Exported:
    """An exported file, to be used like `fastfcn_jax.api.Model`.

    Attributes:
      info: name of the data set, class names, palette.
      size: (height, width) of the images that the program takes.
      metadata: everything else that the file says of itself.
    """

    def __init__(self, run, metadata: dict[str, Any]):
        self._run = run
        self.metadata = metadata
        self.size = tuple(metadata["size"])
        data = metadata["dataset"]
        self.info = DatasetInfo(
            data["name"], tuple(data["class_names"]), np.array(data["palette"], np.uint8)
        )
        self._align_corners = metadata["config"]["model"]["lineage"] == "official"

    @property
    def predictor(self) -> "Exported":
        """What predicts streams of photographs: the same object."""
        return self

    def expect(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Nothing to prepare: the program has one size."""

    def run(self, images: UInt8[np.ndarray, "b h w 3"]) -> dict[str, np.ndarray]:
        """{"labels": uint8 (b, H, W), "logits": float32 (b, H/8, W/8, k)} of images of `size`."""
        return {name: np.asarray(value) for name, value in self._run(images).items()}

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Class indices at the photograph's own size."""
        return self.predict(image).labels

    def predict(self, image: UInt8[np.ndarray, "h w 3"], *, confidence: bool = False) -> Prediction:
        """Class indices and, if asked for, the probability of each."""
        labels = np.empty(image.shape[:2], np.uint8)
        sure = np.empty(image.shape[:2], np.float32) if confidence else None
        for top, scores in self._blocks(image):
            rows = slice(top, top + len(scores))
            labels[rows] = scores.argmax(-1)
            if sure is not None:
                sure[rows] = 1 / np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)
        return Prediction(labels, sure)

    def stream(
        self, images: Iterable[tuple[Any, np.ndarray]], *, confidence: bool = False
    ) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for (key, photograph), in their order."""
        for key, image in images:
            yield key, self.predict(image, confidence=confidence)

    def logits(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w k"]:
        """Logits at the photograph's own size."""
        return np.concatenate([scores for _, scores in self._blocks(image)])

    def _blocks(self, image) -> Iterator[tuple[int, Float[np.ndarray, "r w k"]]]:
        """(first row, logits) of the answer, a few rows at a time."""
        height, width = image.shape[:2]
        factor = min(self.size[0] / height, self.size[1] / width)
        content = max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
        batch = np.empty((1, *self.size, 3), np.uint8)
        batch[:] = MEAN_COLOR
        batch[0, : content[0], : content[1]] = resize_image(image, content)
        scores = self.run(batch)["logits"][0]
        rows, columns = (
            self._upsampling(*lengths)
            for lengths in zip(scores.shape[:2], self.size, content, (height, width), strict=True)
        )
        across = np.einsum("Ww,hwk->hWk", columns, scores, optimize=True)
        for top in range(0, height, BLOCK_ROWS):
            part = rows[top : top + BLOCK_ROWS]
            yield top, np.tensordot(part, across, axes=1)

    def _upsampling(self, map_length: int, padded: int, content: int, own: int):
        """Matrix from the 1/8 map over the padded input to the photograph: two resizes in one."""
        to_input = bilinear_matrix(map_length, padded, align_corners=self._align_corners)
        to_own = bilinear_matrix(content, own, align_corners=self._align_corners)
        return to_own @ to_input[:content]


def load(path: str | Path) -> Exported:
    """Opens a file that `fastfcn export` wrote.

    Raises:
      UserError: the file is missing, of none of the formats, or needs a package to be installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    try:
        runner = RUNNERS[path.suffix.removeprefix(".")]
    except KeyError:
        known = ", ".join(f".{suffix}" for suffix in RUNNERS)
        raise UserError(f"{path}: no exported model; its name ends in one of {known}.") from None
    try:
        run, metadata = runner(path)
        return Exported(run, json.loads(metadata))
    except ImportError as error:
        raise UserError(f"{path}: needs {error.name}: pip install {error.name}.") from error
    except Exception as error:  # each library raises kinds of its own for a broken file
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a file that this program exported ({reason}).") from error


def _stablehlo(path: Path):
    import jax
    import jax.export

    with np.load(path, allow_pickle=False) as archive:
        entries = {name: archive[name] for name in archive.files}
    program = jax.export.deserialize(bytearray(entries["program"].tobytes()))
    weights = {
        name.removeprefix("weights/"): jax.device_put(value)
        for name, value in entries.items()
        if name.startswith("weights/")
    }
    call = jax.jit(program.call)
    return lambda images: call(weights, images), entries["metadata"].tobytes()


def _onnx(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        str(path), options, providers=onnxruntime.get_available_providers()
    )
    metadata = session.get_modelmeta().custom_metadata_map["fastfcn_jax"]
    names = ["labels", "logits"]

    def run(images):
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return run, metadata


def _safetensors(path: Path):
    import jax
    from flax import traverse_util
    from safetensors import safe_open

    from fastfcn_jax import models
    from fastfcn_jax.config import experiment
    from fastfcn_jax.export.writers import Job

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()["fastfcn_jax"]
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.loads(metadata)
    config = experiment.from_json(content["config"])
    num_classes = len(content["dataset"]["class_names"])
    model = models.build(config.model, num_classes)
    variables = jax.device_put(traverse_util.unflatten_dict(weights, sep="/"))
    job = Job(model, variables, num_classes, tuple(content["size"]))
    call = jax.jit(lambda variables, images: job.forward(variables, images, folded=False))
    return lambda images: call(variables, images), metadata


def _tflite(path: Path):
    # Its `lite` is an attribute, not a module to import from.
    import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

    interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    metadata = zipfile.ZipFile(path).read("fastfcn_jax.json")

    def run(images):
        outputs = [runner(images=image[None]) for image in images]
        # The converter names the outputs; the labels have one axis fewer than the logits.
        by_axes = [{value.ndim: value for value in output.values()} for output in outputs]
        return {
            "labels": np.concatenate([output[3] for output in by_axes]),
            "logits": np.concatenate([output[4] for output in by_axes]),
        }

    return run, metadata


RUNNERS = {
    "stablehlo": _stablehlo,
    "onnx": _onnx,
    "safetensors": _safetensors,
    "tflite": _tflite,
}
