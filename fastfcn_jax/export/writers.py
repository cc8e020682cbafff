"""Writes exported files: one function per format.

Every file contains the same description (`text`, of `metadata.write`), and takes images
(b, H, W, c) of the type that the model was trained on, mostly uint8 RGB.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from fastfcn_jax import models
from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.export import metadata, openvino_file, packages
from fastfcn_jax.inference.merge import choose
from fastfcn_jax.models import folding
from fastfcn_jax.models.ops.bilinear import resize

PLATFORMS = ("cpu", "cuda", "tpu")


class Job(NamedTuple):
    """What to export: a model with its variables.

    size: (height, width) of the images; None: any, which ONNX and OpenVINO can hold.
    """

    model: models.Segmentor
    variables: dict[str, Any]
    num_classes: int
    size: tuple[int, int] | None
    scaling: models.Scaling = models.IMAGENET
    pixel: PixelType = RGB

    def forward(self, variables, images, *, folded: bool = True):
        """{"labels": uint8 (b, H, W), "logits": float32 (b, H/8, W/8, k)} of images."""
        model = folding.folded(self.model) if folded else self.model
        outputs: Any = model.apply(variables, models.normalize(images, None, self.scaling))
        align_corners = self.model.backbone.common.align_corners
        full = resize(outputs.logits, images.shape[1:3], align_corners=align_corners)
        threshold = self.model.threshold
        labels, _ = choose(full, probabilities=False, confidence=False, threshold=threshold)
        return {"labels": labels, "logits": outputs.logits}


def stablehlo(job: Job, path: Path, text: str) -> None:
    """An `.npz` archive: the program for CPU, CUDA and TPU and any batch size, and its weights."""
    weights = traverse_util.flatten_dict(folding.fold(job.variables), sep="/")
    assert job.size is not None
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
    path.write_bytes(onnx_model(job, text).SerializeToString())


def onnx_model(job: Job, text: str, extra: str = "onnx"):
    """The ONNX graph, in memory; `extra` is what its user needs."""
    graph = packages.needed("fastfcn_jax.export.onnx_graph", extra)
    return graph.build(
        folding.folded(job.model),
        folding.fold(job.variables),
        job.num_classes,
        job.size,
        job.scaling,
        job.pixel,
        metadata.described(text),
    )


def openvino(job: Job, path: Path, text: str) -> None:
    """OpenVINO's format, for any batch size: the ONNX graph in two files, `.xml` and `.bin`."""
    made = onnx_model(job, text, "openvino").SerializeToString()
    openvino_file.write(openvino_file.converted(made), path)


def safetensors(job: Job, path: Path, text: str) -> None:
    """The weights alone, by Flax paths; the metadata describe the model.

    There is no program, so the input size is only that of the comparison.
    """
    library = packages.needed("safetensors.numpy", "safetensors")
    weights = traverse_util.flatten_dict(job.variables, sep="/")
    tensors = {name: np.ascontiguousarray(w) for name, w in weights.items()}
    # Not `library.save_file`: its file could be read by its owner only.
    header = {
        "checksum": orbax_store.checksum(tensors),
        **metadata.described(text, normalizes=False),
    }
    path.write_bytes(library.save(tensors, header))


def tflite(job: Job, path: Path, text: str) -> None:
    """A TensorFlow Lite file of built-in operators, for one image at a time.

    It takes 16-bit values as float32, since its operators have no such type.

    The metadata are in a zip archive at its end, as with TensorFlow Lite's own tools.
    """
    tf = packages.needed("tensorflow", "tflite")
    from jax.experimental import jax2tf

    assert job.size is not None
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


WRITERS = {
    "stablehlo": stablehlo,
    "onnx": onnx,
    "openvino": openvino,
    "safetensors": safetensors,
    "tflite": tflite,
}
