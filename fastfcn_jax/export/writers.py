"""Writes exported files: one function per format.

Every file contains the same description (`text`, of `metadata.write`), and takes images
(b, H, W, c) of the type that the model was trained on, mostly uint8 RGB.
"""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from fastfcn_jax import models
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata
from fastfcn_jax.inference.merge import choose
from fastfcn_jax.models import folding
from fastfcn_jax.models.ops.bilinear import resize

PLATFORMS = ("cpu", "cuda", "tpu")


class Job(NamedTuple):
    """What to export: a model with its variables for images of `size` (height, width)."""

    model: models.Segmentor
    variables: dict[str, Any]
    num_classes: int
    size: tuple[int, int]
    scaling: models.Scaling = models.IMAGENET
    pixel: PixelType = RGB

    def forward(self, variables, images, *, folded: bool = True):
        """{"labels": uint8 (b, H, W), "logits": float32 (b, H/8, W/8, k)} of images."""
        model = folding.folded(self.model) if folded else self.model
        outputs: Any = model.apply(variables, models.normalize(images, None, self.scaling))
        align_corners = self.model.backbone.common.align_corners
        full = resize(outputs.logits, self.size, align_corners=align_corners)
        threshold = self.model.threshold
        labels, _ = choose(full, probabilities=False, confidence=False, threshold=threshold)
        return {"labels": labels, "logits": outputs.logits}


def stablehlo(job: Job, path: Path, text: str) -> None:
    """An `.npz` archive: the program for CPU, CUDA and TPU and any batch size, and its weights."""
    weights = traverse_util.flatten_dict(folding.fold(job.variables), sep="/")
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *job.size, job.pixel.channels), job.pixel.dtype)
    shapes = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), weights)

    def run(weights, images):
        return job.forward(traverse_util.unflatten_dict(weights, sep="/"), images)

    program = jax.export.export(jax.jit(run), platforms=PLATFORMS)(shapes, images)
    entries: dict[str, Any] = {f"weights/{name}": np.asarray(w) for name, w in weights.items()}
    entries["program"] = np.frombuffer(program.serialize(), np.uint8)
    entries["metadata"] = np.frombuffer(text.encode(), np.uint8)
    entries |= {name: np.array(value) for name, value in metadata.properties(text).items()}
    with open(path, "wb") as file:
        np.savez(file, **entries)


def onnx(job: Job, path: Path, text: str) -> None:
    """An ONNX graph for any batch size; see `onnx_graph`."""
    graph = _import("fastfcn_jax.export.onnx_graph", "onnx")
    made = graph.build(
        folding.folded(job.model),
        folding.fold(job.variables),
        job.num_classes,
        job.size,
        job.scaling,
        job.pixel,
        {"fastfcn_jax": text, **_as_json(metadata.properties(text))},
    )
    path.write_bytes(made.SerializeToString())


def safetensors(job: Job, path: Path, text: str) -> None:
    """The weights alone, by Flax paths; the metadata describe the model.

    There is no program, so the input size is only that of the comparison.
    """
    library = _import("safetensors.numpy", "safetensors")
    weights = traverse_util.flatten_dict(job.variables, sep="/")
    tensors = {name: np.ascontiguousarray(w) for name, w in weights.items()}
    # Not `library.save_file`: its file could be read by its owner only.
    described = {
        "fastfcn_jax": text,
        "checksum": orbax_store.checksum(tensors),
        **_as_json(metadata.properties(text, normalizes=False)),
    }
    path.write_bytes(library.save(tensors, described))


def tflite(job: Job, path: Path, text: str) -> None:
    """A TensorFlow Lite file of built-in operators, for one image at a time.

    It takes 16-bit values as float32, since its operators have no such type.

    The metadata are in a zip archive at its end, as with TensorFlow Lite's own tools.
    """
    tf = _import("tensorflow", "tflite")
    from jax.experimental import jax2tf

    variables = jax.tree.map(np.asarray, folding.fold(job.variables))

    def run(images):
        return job.forward(variables, images)

    convert = jax2tf.convert(run, native_serialization=False, enable_xla=False)
    dtype = "uint8" if job.pixel.dtype == "uint8" else "float32"
    shape = (1, *job.size, job.pixel.channels)
    signature = [tf.TensorSpec(shape, tf.as_dtype(dtype), name="images")]
    function = tf.function(convert, input_signature=signature, autograph=False)
    module = tf.Module()
    module.run = function
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], module
    )
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("fastfcn_jax.json", text)


WRITERS = {"stablehlo": stablehlo, "onnx": onnx, "safetensors": safetensors, "tflite": tflite}


def _as_json(values: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in values.items()}


def _import(module: str, extra: str):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"--format {extra} needs a package that is not installed ({error.name}): "
            f"pip install 'fastfcn-jax[{extra}]'."
        ) from error
