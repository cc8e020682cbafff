"""Writes a segmentor as an ONNX graph, layer by layer, in ONNX's own operators.

Automatic converters turn the fast implementations of our layers (shifted sums, matrix products,
gathers) into hundreds of small operators and lose the padding of the max pool. Takes folded
weights, so a layer is one `Conv` and one `Relu`. Activations are NCHW within the graph.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fastfcn_jax import __version__
from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.export.onnx_heads import HEADS
from fastfcn_jax.export.onnx_operators import Graph, Size
from fastfcn_jax.models import jpu, segmentor
from fastfcn_jax.models.resnet import BLOCKS, Bottleneck

OPSET = 18


def build(
    model: segmentor.Segmentor,
    variables: Mapping[str, Any],
    num_classes: int,
    size: tuple[int, int] | None,
    scaling: segmentor.Scaling,
    pixel: PixelType,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """The graph of a folded model (`models.folding`) for images of `size` in batches of any size.

    size: (height, width) of the images; None: the graph takes any.

    Input `images`: (b, h, w, c) of type `pixel`. Outputs: `labels` uint8 (b, h, w), the classes at
    the input's size, and `logits` float32 (b, h/8, w/8, k).
    """
    graph = Graph(variables, model.backbone.common.align_corners)
    own = graph.size_of("images", 1) if size is None else size
    x = _normalize(graph, scaling, pixel)
    everything = _backbone(graph, x, own, model.backbone)
    _, *pyramid = everything
    if model.neck is None:
        x, shape = pyramid[-1]
    elif isinstance(model.neck, jpu.JPU):
        x, shape = _jpu(graph, pyramid, model.neck)
    else:
        assert isinstance(model.neck, jpu.JPUX)
        x, shape = _jpu_x(graph, pyramid, model.neck)
    fine = {"fine": model.lateral_of(everything)} if model.lateral else {}
    x = HEADS[type(model.decode_head)](graph, x, shape, model.decode_head, **fine)
    logits = graph.conv(x, "decode_head/conv_seg", bias="decode_head/conv_seg/bias")
    if model.threshold is None:
        winner = graph.add("ArgMax", [graph.resize(logits, own)], axis=1, keepdims=0)
    else:
        limit = graph.constant(np.array(model.threshold, np.float32))
        odds = graph.add("Sigmoid", [graph.resize(logits, own)])
        above = graph.add("Greater", [odds, limit])
        winner = graph.add("Squeeze", [above, graph.constant(np.array([1]))])
        first = graph.add("Sub", [logits, logits])  # 0, of any batch size
        logits = graph.concat([first, logits])
    graph.add("Transpose", [logits], "logits", perm=[0, 2, 3, 1])
    graph.add("Cast", [winner], "labels", to=TensorProto.UINT8)

    height, width = size or ("height", "width")
    small = ("height/8", "width/8") if isinstance(shape, str) else shape
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", height, width]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *small, num_classes]),
    ]
    shape = ["batch", height, width, pixel.channels]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(pixel.dtype))
    image = helper.make_tensor_value_info("images", kind, shape)
    made = helper.make_model(
        helper.make_graph(graph.nodes, "fastfcn", [image], outputs, list(graph.tensors.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fastfcn_jax",
        producer_version=__version__,
    )
    made.ir_version = 9  # read by onnxruntime 1.17 and later
    helper.set_model_props(made, dict(metadata))
    onnx.checker.check_model(made)
    return made


def _normalize(graph: Graph, scaling: segmentor.Scaling, pixel: PixelType) -> str:
    x = graph.add("Cast", ["images"], to=TensorProto.FLOAT)
    x = graph.add("Sub", [x, graph.constant(np.array(scaling.mean, np.float32))])
    x = graph.add("Div", [x, graph.constant(np.array(scaling.std, np.float32))])
    if pixel.dtype == "float32":  # NaN compares as false
        largest = graph.constant(np.array(np.finfo(np.float32).max))
        known = graph.add("LessOrEqual", [graph.add("Abs", [x]), largest])
        x = graph.add("Where", [known, x, graph.constant(np.zeros((), np.float32))])
    return graph.add("Transpose", [x], perm=[0, 3, 1, 2])


def _backbone(graph: Graph, x: str, size: Size, backbone) -> list[tuple[str, Size]]:
    """(feature map, its size) of every stage."""

    def layer(x, path, norm, **options):
        return graph.conv(x, f"backbone/{path}", bias=f"backbone/{norm}/bias", **options)

    if len(backbone.stem_widths) == 1:
        x = layer(x, "conv1", "bn1", stride=2, relu=True)
    else:
        for i in range(3):
            stride = 2 if i == 0 else 1
            x = layer(x, f"stem_{3 * i}", f"stem_{3 * i + 1}", stride=stride, relu=True)
    x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    size = graph.halved(graph.halved(size))
    block, counts, _, groups = BLOCKS[backbone.variant]
    pyramid = []
    for stage, count in enumerate(counts):
        for i in range(count):
            path = f"layer{stage + 1}_{i}"
            stride = backbone.strides[stage] if i == 0 else 1
            dilation = backbone.dilation_of(stage, i)
            middle = {"stride": stride, "dilation": dilation, "relu": True}
            if block is Bottleneck:
                y = layer(x, f"{path}/conv1", f"{path}/bn1", relu=True)
                y = layer(y, f"{path}/conv2", f"{path}/bn2", groups=groups, **middle)
                y = layer(y, f"{path}/conv3", f"{path}/bn3")
            else:
                y = layer(x, f"{path}/conv1", f"{path}/bn1", **middle)
                y = layer(y, f"{path}/conv2", f"{path}/bn2")
            if f"backbone/{path}/downsample_0/kernel" in graph.weights:
                x = layer(x, f"{path}/downsample_0", f"{path}/downsample_1", stride=stride)
            elif f"backbone/{path}/downsample_1/kernel" in graph.weights:
                x = graph.average_pairs(x, size) if stride == 2 else x
                x = layer(x, f"{path}/downsample_1", f"{path}/downsample_2")
            x = graph.add("Relu", [graph.add("Add", [y, x])])
            size = graph.halved(size) if stride == 2 else size
        pyramid.append((x, size))
    return pyramid


def _separable(graph: Graph, x: str, path: str, dilation: int) -> str:
    x = graph.module(x, f"{path}/depthwise_conv", dilation=dilation, relu=False)
    return graph.module(x, f"{path}/pointwise_conv")


def _jpu(graph: Graph, pyramid, neck: jpu.JPU) -> tuple[str, Size]:
    size = pyramid[0][1]
    maps = []
    for i, (x, own) in enumerate(pyramid):
        x = graph.module(x, f"neck/conv_layers_{i}_0")
        maps.append(x if own == size else graph.resize(x, size))
    joint = graph.concat(maps[::-1] if neck.coarse_first else maps)
    branches = [
        _separable(graph, joint, f"neck/dilation_layers_{i}_0", dilation)
        for i, dilation in enumerate(neck.dilations)
    ]
    return graph.concat(branches), size


def _jpu_x(graph: Graph, pyramid, neck: jpu.JPUX) -> tuple[str, Size]:
    (x, size), *lower = pyramid
    for unit, dilations in ((1, (1, 2, 4)), (2, (2, 4, 8))):
        path = f"neck/jum_{unit}"
        low = graph.resize(graph.module(lower[unit - 1][0], f"{path}/conv_l"), size)
        joint = graph.concat([low, graph.module(x, f"{path}/conv_h")])
        branches = [
            _separable(graph, joint, f"{path}/dilation_layers_{i}", dilation)
            for i, dilation in enumerate(dilations)
        ]
        x = graph.concat([low, *branches])
    return x, size
