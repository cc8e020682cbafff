"""OpenVINO's format: the ONNX graph in two files, `.xml` and beside it `.bin`.

The precision of the arithmetic is not in the graph. It is a hint to whoever compiles it, stored
with the file's description; what other programs make of it is theirs.
"""

from pathlib import Path
from typing import Any

from fastfcn_jax.export import metadata, packages

# Of int8 what is not a quantised layer is computed in bfloat16. Without a hint OpenVINO computes
# float32 models in bfloat16 too, on the processors that have it.
HINTS = {"float32": "f32", "float16": "f32", "bf16": "bf16", "int8": "bf16"}
DESCRIPTION = "framework"  # the section that OpenVINO gives an ONNX file's properties


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16; elsewhere a hint would be emulated, or void."""
    return "BF16" in packages.openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def converted(graph: bytes) -> Any:
    """An ONNX file's content as a model in memory, with its properties.

    Raises:
      UserError: OpenVINO is not installed.
    """
    return packages.openvino().Core().read_model(graph)


def describe(model: Any, text: str) -> None:
    """Replaces the model's description."""
    for name, value in metadata.described(text).items():
        model.set_rt_info(value, [DESCRIPTION, name])


def write(model: Any, path: Path) -> None:
    packages.openvino().serialize(model, str(path), str(path.with_suffix(".bin")))


def read(path: Path):
    """Compiles the file for this processor; returns a function that runs it, and its description.

    Raises:
      ValueError: the file with the weights is missing, or the description is not valid.
      UserError: OpenVINO is not installed.
    """
    core = packages.openvino(str(path)).Core()
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ValueError(f"{weights.name}, which belongs to it, is not beside it")
    model = core.read_model(str(path), str(weights))
    said = str(model.get_rt_info([DESCRIPTION, "fastfcn_jax"]).value)
    hint = HINTS[metadata.precision(metadata.read(said))] if has_bfloat16() else "f32"
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})

    def run(images):
        answers = compiled({"images": images})
        return {name: answers[name] for name in ("labels", "logits")}

    return run, said
