"""Opens exported files, which then have the same interface as `fastfcn_jax.load(DIR)`.

StableHLO, ONNX, OpenVINO and TFLite files are programs: whoever made one decides what it computes,
how much memory it takes and when it ends. Only safetensors files contain nothing but numbers.
"""

import contextlib
import io
import math
import re
import zipfile
from pathlib import Path

import numpy as np

from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata
from fastfcn_jax.export.exported import Exported, reason

# The only custom call in our own StableHLO programs: it checks the batch size.
HARMLESS_CALL = "stablehlo.custom_call @shape_assertion("


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
    except UserError:
        raise
    except Exception as error:  # each library raises kinds of its own for a broken file
        raise UserError(
            f"{path}: not a file that this program exported ({reason(error)})."
        ) from error


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


def _openvino(path: Path):
    from fastfcn_jax.export import openvino_file

    return openvino_file.read(path)


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
    "xml": _openvino,
    "safetensors": _safetensors,
    "tflite": _tflite,
}
