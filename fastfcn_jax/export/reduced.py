"""Models of reduced precision: float16 and int8 in ONNX, bfloat16 and int8 in OpenVINO.

Labels are decided in float32 in ONNX files, and so are the codes of the Enc head, whose sums of
squares neither float16 nor eight bits can hold.

Weights of int8 files keep to seven bits. A processor without VNNI adds two products of eight bits
in sixteen and cuts off what does not fit: with eight-bit weights its labels would be others than
those of the processor that the file was compared on.
"""

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata, openvino_file, packages, writers

Images = Iterable[Num[np.ndarray, "1 h w c"]]  # inputs of the program, to calibrate on
Write = Callable[[Path, str], None]  # the file with this description

# All operators that ONNX Runtime computes or passes on in eight bits, but for sums with a constant
# (`_with_constants`), and `ConvTranspose`, whose weights alone are stored so.
QUANTIZED = ["Conv", "ConvTranspose", "Add", "Relu", "MaxPool", "Concat", "Resize"]


def _onnx_float16(job: writers.Job, text: str, images: Images) -> Write:
    float16 = packages.needed("onnxruntime.transformers.float16", "onnx")
    made = _named(writers.onnx_model(job, text))
    nodes = list(made.graph.node)
    # Pixels of 16 bits and more do not fit into float16 before they are normalised.
    first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    wide = [node.name for node in nodes[:first]] + _delicate(nodes)
    return _onnx_writer(
        float16.convert_float_to_float16(made, keep_io_types=True, node_block_list=wide)
    )


def _onnx_int8(job: writers.Job, text: str, images: Images) -> Write:
    onnx = packages.needed("onnx", "onnx")
    quantization = packages.needed("onnxruntime.quantization", "onnx")
    waiting = iter(images)

    class Inputs(quantization.CalibrationDataReader):
        def get_next(self):
            image = next(waiting, None)
            return None if image is None else {"images": image}

    made = _named(writers.onnx_model(job, text))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        quantization.quantize_static(
            made,
            str(path),
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # weights of seven bits
            op_types_to_quantize=QUANTIZED,
            # The pools' products are few, and are spread over the whole map in float32.
            extra_options={"OpTypesToExcludeOutputQuantization": ["ConvTranspose"]},
            nodes_to_exclude=_delicate(list(made.graph.node)) + _with_constants(made.graph),
        )
        return _onnx_writer(onnx.load(str(path)))


def _openvino_bfloat16(job: writers.Job, text: str, images: Images) -> Write:
    if not openvino_file.has_bfloat16():
        raise UserError(
            "--precision bf16: this processor does not compute in bfloat16, so the file could not "
            "be compared with its source; run this on one that does, or give int8."
        )
    return _openvino_writer(_in_openvino(job, text))


def _openvino_int8(job: writers.Job, text: str, images: Images) -> Write:
    nncf = packages.nncf()
    nncf.set_log_level(logging.ERROR)
    listed = [{"images": image} for image in images]
    with contextlib.redirect_stdout(sys.stderr):  # its progress
        quantized = nncf.quantize(
            _in_openvino(job, text),
            nncf.Dataset(listed),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(listed),
            # Products of matrices are those of the pyramid's pools and of the Enc head's codes.
            ignored_scope=nncf.IgnoredScope(types=["MatMul"], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE  # weights of seven bits
            ),
        )
    return _openvino_writer(quantized)


def _in_openvino(job: writers.Job, text: str) -> Any:
    graph = writers.onnx_model(job, text, "openvino")
    return openvino_file.converted(graph.SerializeToString())


def _openvino_writer(model: Any) -> Write:
    def write(path: Path, text: str) -> None:
        openvino_file.describe(model, text)
        openvino_file.write(model, path)

    return write


def _onnx_writer(model: Any) -> Write:
    helper = packages.needed("onnx.helper", "onnx")

    def write(path: Path, text: str) -> None:
        helper.set_model_props(model, metadata.described(text))
        path.write_bytes(model.SerializeToString())

    return write


def _named(made: Any) -> Any:
    """The graph, its nodes named so that they can be told apart."""
    for i, node in enumerate(made.graph.node):
        node.name = f"{node.op_type.lower()}_{i}"
    return made


def _delicate(nodes: list[Any]) -> list[str]:
    """Names of the nodes behind the classifier, and of those that compute the Enc head's code."""
    kinds = [node.op_type for node in nodes]
    found = nodes[len(kinds) - kinds[::-1].index("Conv") :]
    if "Softmax" in kinds:
        softmax = kinds.index("Softmax")
        begun = softmax - kinds[softmax::-1].index("Reshape")
        found = nodes[begun : kinds.index("Sigmoid", softmax) + 1] + found
    return [node.name for node in found]


def _with_constants(graph: Any) -> list[str]:
    """Names of the sums with a constant, which belong to a normalisation."""
    constants = {tensor.name for tensor in graph.initializer}
    sums = (node for node in graph.node if node.op_type == "Add")
    return [node.name for node in sums if constants & set(node.input)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to optimise the graph first, which ours has no use for."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


MAKERS: dict[tuple[str, str], Callable[[writers.Job, str, Images], Write]] = {
    ("onnx", "float16"): _onnx_float16,
    ("onnx", "int8"): _onnx_int8,
    ("openvino", "bf16"): _openvino_bfloat16,
    ("openvino", "int8"): _openvino_int8,
}
