"""Runs exported files, with the same interface as `fastfcn_jax.load(DIR)`.

A file has one input size. A photograph of another size is scaled to fit, padded with the mean
colour, and the scores are scaled back.

StableHLO, ONNX and TFLite files are programs: whoever made one decides what it computes, how much
memory it takes and when it ends. Only safetensors files contain nothing but numbers.
"""

import contextlib
import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8

from fastfcn_jax.data import pixel_type
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata
from fastfcn_jax.files import first_line
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.rescale import bilinear_matrix, resize_image

MEAN_COLOR = (124, 116, 104)  # normalises to about 0, mmsegmentation's padding value
BLOCK_ROWS = 64  # rows of scores at full resolution held in memory at once

# The only custom call in our own StableHLO programs: it checks the batch size.
HARMLESS_CALL = "stablehlo.custom_call @shape_assertion("


class Exported:
    """An exported file, to be used like `fastfcn_jax.api.Model`.

    Attributes:
      info: name of the data set, class names, palette.
      size: (height, width) of the images that the program takes.
      pixel: type of the images that it takes.
      threshold: of a one-channel model; None: any other.
      metadata: everything else in the file's description.
    """

    def __init__(self, path: Path, run, said: dict[str, Any]):
        self._path = path
        self._run = run
        self.metadata = said
        self.size = tuple(said["size"])
        self.info: DatasetInfo = metadata.info(said)
        self.pixel, mean = metadata.images(said)
        self.threshold = metadata.threshold(said)
        self._fill = np.round(mean or MEAN_COLOR)
        self._align_corners = said["config"]["model"]["lineage"] == "official"

    @property
    def predictor(self) -> "Exported":
        """The object with `stream`: this one, as for `fastfcn_jax.api.Model`."""
        return self

    def expect(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Does nothing: the program has one size."""

    def run(self, images: Num[np.ndarray, "b h w c"]) -> dict[str, np.ndarray]:
        """{"labels": uint8 (b, H, W), "logits": float32 (b, H/8, W/8, k)} of images of `size`.

        Raises:
          UserError: the file's program fails, or returns something else.
        """
        try:
            answers = {name: np.asarray(value) for name, value in self._run(images).items()}
        except Exception as error:  # each library raises kinds of its own
            raise UserError(f"{self._path}: does not run ({_reason(error)}).") from error
        labels, logits = answers["labels"], answers["logits"]
        batch, classes = len(images), self.info.num_classes
        is_map = logits.ndim == 4 and 0 < logits.size <= batch * math.prod(self.size) * classes
        if labels.shape != (batch, *self.size) or not is_map or logits.shape[3] != classes:
            raise UserError(
                f"{self._path}: gives labels {labels.shape} and logits {logits.shape}, not those "
                f"of {classes} classes for {batch}x{self.size[0]}x{self.size[1]} pixels."
            )
        return answers

    def __call__(self, image: Num[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w"]:
        """Class indices in the photograph's size."""
        return self.predict(image).labels

    def predict(self, image: Num[np.ndarray, "h w c"], *, confidence: bool = False) -> Prediction:
        """Class indices and, if requested, the probability of each."""
        labels = np.empty(image.shape[:2], np.uint8)
        sure = np.empty(image.shape[:2], np.float32) if confidence else None
        for top, scores in self._blocks(image):
            rows = slice(top, top + len(scores))
            if self.threshold is not None:  # one channel, as a second class beside one of logit 0
                odds = 1 / (1 + np.exp(scores[..., 0] - scores[..., 1]))
                labels[rows] = odds > self.threshold
                if sure is not None:
                    sure[rows] = np.where(labels[rows], odds, 1 - odds)
                continue
            labels[rows] = scores.argmax(-1)
            if sure is not None:
                sure[rows] = 1 / np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)
        return Prediction(labels, sure, image=image, info=self.info)

    def stream(
        self, images: Iterable[tuple[Any, np.ndarray]], *, confidence: bool = False
    ) -> Iterator[tuple[Any, Prediction]]:
        """Yields (key, prediction) for (key, photograph), in order."""
        for key, image in images:
            yield key, self.predict(image, confidence=confidence)

    def logits(self, image: Num[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
        """Logits in the photograph's size."""
        return np.concatenate([scores for _, scores in self._blocks(image)])

    def _blocks(self, image) -> Iterator[tuple[int, Float[np.ndarray, "r w k"]]]:
        """Yields (first row, logits) at full resolution, a few rows at a time."""
        pixel_type.check(PixelType(image.shape[2], image.dtype.name), "the image", self.pixel)
        height, width = image.shape[:2]
        factor = min(self.size[0] / height, self.size[1] / width)
        content = max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
        batch = np.empty((1, *self.size, self.pixel.channels), self.pixel.dtype)
        batch[:] = self._fill
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
        """Matrix from the 1/8 map of the padded input to the photograph: two resizes in one."""
        to_input = bilinear_matrix(map_length, padded, align_corners=self._align_corners)
        to_own = bilinear_matrix(content, own, align_corners=self._align_corners)
        return to_own @ to_input[:content]


def load(path: str | Path) -> Exported:
    """Opens a file that `fastfcn export` wrote.

    All formats but safetensors are programs that `run` executes: open only files you trust.

    Raises:
      UserError: the file is missing, has none of the formats, or needs a missing package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    try:
        runner = RUNNERS[path.suffix.removeprefix(".")]
    except KeyError:
        known = ", ".join(f".{suffix}" for suffix in RUNNERS)
        raise UserError(f"{path}: not an exported model ({known}).") from None
    try:
        run, said = runner(path)
        return Exported(path, run, metadata.read(said))
    except ImportError as error:
        raise UserError(f"{path}: needs {error.name}: pip install {error.name}.") from error
    except Exception as error:  # each library raises kinds of its own for a broken file
        raise UserError(
            f"{path}: not a file that this program exported ({_reason(error)})."
        ) from error


def _reason(error: Exception) -> str:
    """The error's first line, escaped: its text may come from the file, with control characters."""
    line = first_line(error)
    return line if line.isprintable() else ascii(line)[1:-1]


def _stablehlo(path: Path):
    import jax
    import jax.export

    entries = _read_npz(path)
    program = jax.export.deserialize(bytearray(entries["program"].tobytes()))
    calls = program.mlir_module().replace(HARMLESS_CALL, "")
    if called := re.search(r"custom_call[^({]*", calls):
        # XLA would call any function of that name in this process, with any pointer.
        raise ValueError(f"its program calls functions of the machine: {called[0][:80]}")
    weights = {
        name.removeprefix("weights/"): jax.device_put(value)
        for name, value in entries.items()
        if name.startswith("weights/")
    }
    call = jax.jit(program.call)
    return lambda images: call(weights, images), entries["metadata"].tobytes()


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive that `numpy.savez` wrote, in no more memory than the file's size.

    `numpy.load` would unpack compressed parts of any size, and allocate any shape that a part
    claims.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        return {part.filename.removesuffix(".npy"): _array(archive.read(part)) for part in parts}


def _array(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, in_columns, dtype = headers[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("one of its arrays has another size than it claims")
    array = np.frombuffer(data, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if in_columns else "C")


def _onnx(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its attempts at a broken file
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    said = session.get_modelmeta().custom_metadata_map["fastfcn_jax"]
    names = ["labels", "logits"]

    def run(images):
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return run, said


def _safetensors(path: Path):
    import jax
    from flax import traverse_util
    from safetensors import safe_open

    from fastfcn_jax import models
    from fastfcn_jax.checkpoints import orbax_store
    from fastfcn_jax.config import experiment
    from fastfcn_jax.export.writers import Job

    with safe_open(path, framework="numpy") as file:
        said, checksum = (file.metadata()[key] for key in ("fastfcn_jax", "checksum"))
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if orbax_store.checksum(weights) != checksum:
        raise ValueError("its weights do not match their checksum; fetch it again")
    content = metadata.read(said)
    config = experiment.from_json(content["config"])
    scaling, (pixel, _) = models.scaling(config.data), metadata.images(content)
    num_classes = len(content["dataset"]["class_names"])
    model = models.build(config.model, num_classes)
    variables = jax.device_put(traverse_util.unflatten_dict(weights, sep="/"))
    job = Job(model, variables, num_classes, tuple(content["size"]), scaling, pixel)
    call = jax.jit(lambda variables, images: job.forward(variables, images, folded=False))
    return lambda images: call(variables, images), said


def _tflite(path: Path):
    # `lite` is an attribute of the package, so it cannot be imported from.
    import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

    interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    dtype = runner.get_input_details()["images"]["dtype"]  # float32 for 16 bits
    with zipfile.ZipFile(path) as archive, archive.open("fastfcn_jax.json") as part:
        said = part.read(metadata.MAX_BYTES + 1)  # it may unpack to a thousand times its size

    def run(images):
        outputs = [runner(images=image[None].astype(dtype)) for image in images]
        # The converter names the outputs; the labels have one axis fewer than the logits.
        by_axes = [{value.ndim: value for value in output.values()} for output in outputs]
        return {
            "labels": np.concatenate([output[3] for output in by_axes]),
            "logits": np.concatenate([output[4] for output in by_axes]),
        }

    return run, said


RUNNERS = {
    "stablehlo": _stablehlo,
    "onnx": _onnx,
    "safetensors": _safetensors,
    "tflite": _tflite,
}
