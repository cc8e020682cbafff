"""The decode heads in ONNX operators, up to the classifier; each takes a feature map of `size`."""

import numpy as np

from fastfcn_jax.export import onnx_pyramid
from fastfcn_jax.export.onnx_operators import Graph, Size
from fastfcn_jax.export.onnx_pyramid import Grid
from fastfcn_jax.models import heads

_DENSE = ("kernel", "bias")


def _fcn(graph: Graph, x: str, size: Size, head: heads.FCNHead) -> str:
    y = x
    for i in range(head.num_convs):
        y = graph.module(y, f"decode_head/convs_{i}")
    if head.concat_input:
        y = graph.module(graph.concat([x, y]), "decode_head/conv_cat")
    return y


def _psp(graph: Graph, x: str, size: Size, head: heads.PSPHead) -> str:
    grids = []
    for i, scale in enumerate(head.scales):
        pooled = graph.module(graph.pool(x, scale, size), f"decode_head/psp_modules_{i}_1")
        grids.append(Grid(pooled, scale, head.channels))
    return onnx_pyramid.module(graph, x, grids, "decode_head/bottleneck", size)


def _aspp(graph: Graph, x: str, size: Size, head: heads.ASPPHead) -> str:
    pooled = graph.module(graph.pool(x, 1, size), "decode_head/image_pool_1")
    branches = [
        graph.module(x, f"decode_head/aspp_modules_{i}", dilation=dilation)
        for i, dilation in enumerate(head.dilations)
    ]
    y = onnx_pyramid.module(
        graph,
        graph.concat(branches),
        [Grid(pooled, 1, head.channels)],
        "decode_head/project" if head.project else "decode_head/bottleneck",
        size,
        grids_first=not head.pool_last,
    )
    return graph.module(y, "decode_head/bottleneck") if head.project else y


def _enc(graph: Graph, x: str, size: Size, head: heads.EncHead, fine=()) -> str:
    path = "decode_head/enc_module"
    x = graph.module(x, "decode_head/bottleneck")
    if head.lateral:
        maps = [x]
        for i, (lateral, own) in enumerate(fine):
            lateral = graph.module(lateral, f"decode_head/lateral_convs_{i}")
            maps.append(lateral if own == size else graph.resize(lateral, size))
        x = graph.module(graph.concat(maps), "decode_head/fusion")
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


def _code_norm(graph: Graph, x: str, path: str) -> str:
    """BatchNorm over the code axis (b, codes, c) and ReLU; folding does not change this layer."""
    mean, var = (np.asarray(graph.weights[f"{path}/{name}/stats"]) for name in ("mean", "var"))
    scale, bias = (np.asarray(graph.weights[f"{path}/{name}"]) for name in ("scale", "bias"))
    factor = scale / np.sqrt(var + np.float32(1e-5))
    x = graph.add("Mul", [x, graph.constant(factor[:, None])])
    return graph.add(
        "Relu", [graph.add("Add", [x, graph.constant((bias - mean * factor)[:, None])])]
    )


HEADS = {
    heads.FCNHead: _fcn,
    heads.PSPHead: _psp,
    heads.ASPPHead: _aspp,
    heads.EncHead: _enc,
}
