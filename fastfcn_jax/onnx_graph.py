"""A segmentor as an ONNX graph, layer by layer: the same mathematics in ONNX's own operators.

Written by hand because automatic converters turn the fast forms of our layers (shifted sums,
matrix products, gathers) into hundreds of small operators, and lose the padding of the max pool.
Takes folded weights, so a layer is one `Conv` and one `Relu`. Data stay NCHW within the graph.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from flax import traverse_util
from onnx import TensorProto, helper, numpy_helper

from fastfcn_jax.models import heads, jpu, segmentor
from fastfcn_jax.models.pooling import pooling_weights
from fastfcn_jax.models.resnet import BLOCKS, Bottleneck

OPSET = 18


def build(
    model: segmentor.Segmentor,
    variables: Mapping[str, Any],
    num_classes: int,
    size: tuple[int, int],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """The graph of a folded model (`models.folding`) for images of `size` in batches of any size.

    Input `images`: uint8 (b, h, w, 3) RGB. Outputs: `labels` uint8 (b, h, w), the classes at the
    input's size, and `logits` float32 (b, h/8, w/8, k).
    """
    graph = _Graph(variables, model.backbone.common.align_corners)
    x = _normalize(graph)
    shape = size
    _, *pyramid = _backbone(graph, x, shape, model.backbone)
    if model.neck is None:
        x, shape = pyramid[-1]
    elif isinstance(model.neck, jpu.JPU):
        x, shape = _jpu(graph, pyramid, model.neck)
    else:
        assert isinstance(model.neck, jpu.JPUX)
        x, shape = _jpu_x(graph, pyramid, model.neck)
    x = _HEADS[type(model.decode_head)](graph, x, shape, model.decode_head)
    logits = graph.conv(x, "decode_head/conv_seg", bias="decode_head/conv_seg/bias")
    graph.add("Transpose", [logits], "logits", perm=[0, 2, 3, 1])
    winner = graph.add("ArgMax", [graph.resize(logits, size)], axis=1, keepdims=0)
    graph.add("Cast", [winner], "labels", to=TensorProto.UINT8)

    height, width = size
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", height, width]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *shape, num_classes]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])
    made = helper.make_model(
        helper.make_graph(graph.nodes, "fastfcn", [image], outputs, list(graph.tensors.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fastfcn_jax",
    )
    made.ir_version = 9  # what onnxruntime since 1.17 reads
    helper.set_model_props(made, dict(metadata))
    onnx.checker.check_model(made)
    return made


class _Graph:
    """Nodes and constants as they are added; every method returns the name of its output."""

    def __init__(self, variables, align_corners: bool):
        self.weights = {
            **traverse_util.flatten_dict(variables["params"], sep="/"),
            **{
                f"{path}/stats": value
                for path, value in traverse_util.flatten_dict(
                    variables["batch_stats"], sep="/"
                ).items()
            },
        }
        self.align_corners = align_corners
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value, name: str | None = None) -> str:
        name = name or f"constant_{len(self.tensors)}"
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def conv(
        self, x: str, path: str, *, bias: str | None = None, stride=1, dilation=1, relu=False
    ) -> str:
        """A convolution with symmetric padding; depthwise where the kernel says so."""
        kernel = np.asarray(self.weights[f"{path}/kernel"])
        k, groups = kernel.shape[0], kernel.shape[3] if kernel.shape[2] == 1 else 1
        padding = dilation * (k // 2)
        inputs = [x, self.constant(kernel.transpose(3, 2, 0, 1), f"{path}/kernel")]
        if bias is not None:
            inputs.append(self.constant(np.asarray(self.weights[bias]), bias))
        y = self.add(
            "Conv",
            inputs,
            kernel_shape=[k, k],
            strides=[stride, stride],
            dilations=[dilation, dilation],
            pads=[padding] * 4,
            group=groups,
        )
        return self.add("Relu", [y]) if relu else y

    def module(self, x: str, path: str, *, dilation=1, relu=True) -> str:
        """`layers.ConvModule` and `layers.DepthwiseModule`: convolution, normalisation, ReLU."""
        if f"{path}/bn/bias" in self.weights:
            y = self.conv(x, f"{path}/conv", bias=f"{path}/bn/bias", dilation=dilation)
        else:
            y = self._group_norm(self.conv(x, f"{path}/conv", dilation=dilation), f"{path}/gn")
        return self.add("Relu", [y]) if relu else y

    def _group_norm(self, x: str, path: str, groups: int = 32) -> str:
        scale, bias = (np.asarray(self.weights[f"{path}/{name}"]) for name in ("scale", "bias"))
        shape = self.add("Shape", [x])
        grouped = self.add("Reshape", [x, self.constant(np.array([0, groups, -1]))])
        ones = self.constant(np.ones(groups, np.float32))
        zeros = self.constant(np.zeros(groups, np.float32))
        normal = self.add("InstanceNormalization", [grouped, ones, zeros], epsilon=1e-5)
        normal = self.add("Reshape", [normal, shape])
        scaled = self.add("Mul", [normal, self.constant(scale[:, None, None])])
        return self.add("Add", [scaled, self.constant(bias[:, None, None])])

    def concat(self, maps: list[str]) -> str:
        return self.add("Concat", maps, axis=1)

    def resize(self, x: str, size: tuple[int, int]) -> str:
        """Bilinear to `size`, like `bilinear.resize`."""
        shape = self.add("Shape", [x], start=0, end=2)
        sizes = self.add("Concat", [shape, self.constant(np.array(size, np.int64))], axis=0)
        mode = "align_corners" if self.align_corners else "half_pixel"
        return self.add(
            "Resize", [x, "", "", sizes], mode="linear", coordinate_transformation_mode=mode
        )

    def pool(self, x: str, scale: int, size: tuple[int, int]) -> str:
        """Adaptive average pooling to (scale, scale), as two matrix products."""
        rows, columns = (pooling_weights(scale, n, n) for n in size)
        by_row = self.add("MatMul", [self.constant(rows), x])
        return self.add("MatMul", [by_row, self.constant(columns.T)])


def _normalize(graph: _Graph) -> str:
    x = graph.add("Cast", ["images"], to=TensorProto.FLOAT)
    x = graph.add("Sub", [x, graph.constant(np.array(segmentor.MEAN, np.float32))])
    x = graph.add("Div", [x, graph.constant(np.array(segmentor.STD, np.float32))])
    return graph.add("Transpose", [x], perm=[0, 3, 1, 2])


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)


def _backbone(graph: _Graph, x: str, size, backbone) -> list[tuple[str, tuple[int, int]]]:
    """(map, its size) of every stage."""

    def layer(x, path, norm, **options):
        return graph.conv(x, f"backbone/{path}", bias=f"backbone/{norm}/bias", **options)

    for i in range(3):
        stride = 2 if i == 0 else 1
        x = layer(x, f"stem_{3 * i}", f"stem_{3 * i + 1}", stride=stride, relu=True)
    x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    size = _halved(_halved(size))
    block, counts = BLOCKS[backbone.depth]
    pyramid = []
    for stage, count in enumerate(counts):
        for i in range(count):
            path = f"layer{stage + 1}_{i}"
            stride = backbone.strides[stage] if i == 0 else 1
            dilation = backbone.dilations[stage]
            dilation = max(dilation // 2, 1) if i == 0 else dilation
            middle = {"stride": stride, "dilation": dilation, "relu": True}
            if block is Bottleneck:
                y = layer(x, f"{path}/conv1", f"{path}/bn1", relu=True)
                y = layer(y, f"{path}/conv2", f"{path}/bn2", **middle)
                y = layer(y, f"{path}/conv3", f"{path}/bn3")
            else:
                y = layer(x, f"{path}/conv1", f"{path}/bn1", **middle)
                y = layer(y, f"{path}/conv2", f"{path}/bn2")
            if f"backbone/{path}/downsample_0/kernel" in graph.weights:
                x = layer(x, f"{path}/downsample_0", f"{path}/downsample_1", stride=stride)
            x = graph.add("Relu", [graph.add("Add", [y, x])])
            size = _halved(size) if stride == 2 else size
        pyramid.append((x, size))
    return pyramid


def _separable(graph: _Graph, x: str, path: str, dilation: int) -> str:
    x = graph.module(x, f"{path}/depthwise_conv", dilation=dilation, relu=False)
    return graph.module(x, f"{path}/pointwise_conv")


def _jpu(graph: _Graph, pyramid, neck: jpu.JPU) -> tuple[str, tuple[int, int]]:
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


def _jpu_x(graph: _Graph, pyramid, neck: jpu.JPUX) -> tuple[str, tuple[int, int]]:
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


def _fcn(graph: _Graph, x: str, size, head: heads.FCNHead) -> str:
    y = x
    for i in range(head.num_convs):
        y = graph.module(y, f"decode_head/convs_{i}")
    if head.concat_input:
        y = graph.module(graph.concat([x, y]), "decode_head/conv_cat")
    return y


def _psp(graph: _Graph, x: str, size, head: heads.PSPHead) -> str:
    maps = [x]
    for i, scale in enumerate(head.scales):
        pooled = graph.module(graph.pool(x, scale, size), f"decode_head/psp_modules_{i}_1")
        maps.append(graph.resize(pooled, size))
    return graph.module(graph.concat(maps), "decode_head/bottleneck")


def _aspp(graph: _Graph, x: str, size, head: heads.ASPPHead) -> str:
    pooled = graph.module(graph.pool(x, 1, size), "decode_head/image_pool_1")
    pooled = graph.resize(pooled, size)
    branches = [
        graph.module(x, f"decode_head/aspp_modules_{i}", dilation=dilation)
        for i, dilation in enumerate(head.dilations)
    ]
    y = graph.concat([*branches, pooled] if head.pool_last else [pooled, *branches])
    if head.project:
        y = graph.module(y, "decode_head/project")
    return graph.module(y, "decode_head/bottleneck")


def _enc(graph: _Graph, x: str, size, head: heads.EncHead) -> str:
    path = "decode_head/enc_module"
    x = graph.module(x, "decode_head/bottleneck")
    projected = graph.module(x, f"{path}/encoding_project")
    codes = np.asarray(graph.weights[f"{path}/encoding_0/codewords"])
    scale = np.asarray(graph.weights[f"{path}/encoding_0/scale"])
    # E = sum_n a_n (x_n - c) with a = softmax over the codes of scale |x - c|^2, expanded.
    flat = graph.add(
        "Reshape", [projected, graph.constant(np.array([0, codes.shape[1], -1]))]
    )  # b c n
    squares = graph.add("Mul", [flat, flat])
    squares = graph.add("ReduceSum", [squares, graph.constant(np.array([1]))], keepdims=1)
    cross = graph.add("MatMul", [graph.constant(-2 * codes), flat])  # b k n
    offset = graph.constant(np.square(codes).sum(1)[:, None])
    distance = graph.add("Add", [graph.add("Add", [cross, squares]), offset])
    distance = graph.add("Mul", [distance, graph.constant(scale[:, None])])
    weights = graph.add("Softmax", [distance], axis=1)
    total = graph.add("ReduceSum", [weights, graph.constant(np.array([2]))], keepdims=1)
    sums = graph.add("MatMul", [weights, graph.add("Transpose", [flat], perm=[0, 2, 1])])
    residuals = graph.add("Sub", [sums, graph.add("Mul", [total, graph.constant(codes)])])
    code = _code_norm(graph, residuals, f"{path}/encoding_1")
    code = graph.add("ReduceMean", [code, graph.constant(np.array([1]))], keepdims=0)
    dense = [graph.constant(np.asarray(graph.weights[f"{path}/fc_0/{n}"])) for n in _DENSE]
    gate = graph.add("Sigmoid", [graph.add("Gemm", [code, *dense])])
    gate = graph.add("Unsqueeze", [gate, graph.constant(np.array([2, 3]))])
    return graph.add("Relu", [graph.add("Add", [x, graph.add("Mul", [x, gate])])])


_DENSE = ("kernel", "bias")


def _code_norm(graph: _Graph, x: str, path: str) -> str:
    """BatchNorm over the code axis (b, codes, c) and ReLU; folding leaves it as it is."""
    mean, var = (np.asarray(graph.weights[f"{path}/{name}/stats"]) for name in ("mean", "var"))
    scale, bias = (np.asarray(graph.weights[f"{path}/{name}"]) for name in ("scale", "bias"))
    factor = scale / np.sqrt(var + np.float32(1e-5))
    x = graph.add("Mul", [x, graph.constant(factor[:, None])])
    return graph.add(
        "Relu", [graph.add("Add", [x, graph.constant((bias - mean * factor)[:, None])])]
    )


_HEADS = {
    heads.FCNHead: _fcn,
    heads.PSPHead: _psp,
    heads.ASPPHead: _aspp,
    heads.EncHead: _enc,
}
