"""An ONNX graph under construction, with a method for each operator."""

import numpy as np
import onnx
from flax import traverse_util
from onnx import helper, numpy_helper

from fastfcn_jax.models.pooling import pooling_weights


class Graph:
    """Collects nodes and constants; every method returns the name of its output."""

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
        self,
        x: str,
        path: str,
        *,
        bias: str | None = None,
        stride=1,
        dilation=1,
        groups=1,
        relu=False,
    ) -> str:
        """A convolution with symmetric padding; depthwise if its name says so."""
        kernel = np.asarray(self.weights[f"{path}/kernel"])
        k, groups = kernel.shape[0], kernel.shape[3] if "/depthwise_conv/" in path else groups
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
        """Bilinear resize to `size`, like `ops.bilinear.resize`."""
        shape = self.add("Shape", [x], start=0, end=2)
        sizes = self.add("Concat", [shape, self.constant(np.array(size, np.int64))], axis=0)
        mode = "align_corners" if self.align_corners else "half_pixel"
        return self.add(
            "Resize", [x, "", "", sizes], mode="linear", coordinate_transformation_mode=mode
        )

    def average_pairs(self, x: str, size: tuple[int, int]) -> str:
        """Averages 2x2 with stride 2, an odd last row or column by what there is."""
        return self.add(
            "AveragePool",
            [x],
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[0, 0, size[0] % 2, size[1] % 2],  # `ceil_mode` differs between runtimes
        )

    def pool(self, x: str, scale: int, size: tuple[int, int]) -> str:
        """Adaptive average pooling to (scale, scale), as two matrix products."""
        rows, columns = (pooling_weights(scale, n, n) for n in size)
        by_row = self.add("MatMul", [self.constant(rows), x])
        return self.add("MatMul", [by_row, self.constant(columns.T)])
