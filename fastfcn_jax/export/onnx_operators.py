"""An ONNX graph under construction, with a method for each operator.

The size of a map, (height, width), is a pair of numbers, or in a graph of free size the name of a
tensor of two.
"""

import numpy as np
import onnx
from flax import traverse_util
from onnx import helper, numpy_helper

from fastfcn_jax.models.pooling import pooling_weights

Size = tuple[int, int] | str

_ALL = slice(None)


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
        channels: slice = _ALL,
    ) -> str:
        """A convolution with symmetric padding; depthwise if its name says so.

        channels: those of the kernel's input channels that x holds.
        """
        kernel = np.asarray(self.weights[f"{path}/kernel"])[:, :, channels]
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

    def tap_products(self, x: str, kernel: np.ndarray) -> str:
        """Each position of x times the kernel's matrix of each tap (p, q): (b, k, h * p, w * q)."""
        taps = list(kernel.shape[:2])
        inputs = [x, self.constant(kernel.transpose(2, 3, 0, 1))]
        return self.add("ConvTranspose", inputs, kernel_shape=taps, strides=taps)

    def module(
        self,
        x: str,
        path: str,
        *,
        dilation=1,
        relu=True,
        channels: slice = _ALL,
        others: str | None = None,
    ) -> str:
        """`layers.ConvModule` and `layers.DepthwiseModule`: convolution, normalisation, ReLU.

        channels: as `conv`.
        others: the convolution of all other channels, which is added.
        """
        bias = f"{path}/bn/bias"
        folded = bias in self.weights
        y = self.conv(
            x, f"{path}/conv", bias=bias if folded else None, dilation=dilation, channels=channels
        )
        y = y if others is None else self.add("Add", [y, others])
        y = y if folded else self._group_norm(y, f"{path}/gn")
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

    def size_of(self, x: str, first_axis: int) -> str:
        """The height and width of x, as a tensor; its channels stand before or behind them."""
        return self.add("Shape", [x], start=first_axis, end=first_axis + 2)

    def halved(self, size: Size) -> Size:
        """The size after a stride of 2."""
        if isinstance(size, str):
            return self._divided(self.add("Add", [size, self._integers(1)]), 2)
        return -(-size[0] // 2), -(-size[1] // 2)

    def resize(self, x: str, size: Size) -> str:
        """Bilinear resize to `size`, like `ops.bilinear.resize`."""
        shape = self.add("Shape", [x], start=0, end=2)
        wanted = size if isinstance(size, str) else self.constant(np.array(size, np.int64))
        sizes = self.add("Concat", [shape, wanted], axis=0)
        mode = "align_corners" if self.align_corners else "half_pixel"
        return self.add(
            "Resize", [x, "", "", sizes], mode="linear", coordinate_transformation_mode=mode
        )

    def average_pairs(self, x: str, size: Size) -> str:
        """Averages 2x2 with stride 2, an odd last row or column by what there is."""
        # No window reaches a row of padding behind an even number of rows.
        odd = (1, 1) if isinstance(size, str) else (size[0] % 2, size[1] % 2)
        return self.add(
            "AveragePool",
            [x],
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[0, 0, *odd],  # `ceil_mode` differs between runtimes
        )

    def pool(self, x: str, scale: int, size: Size) -> str:
        """Adaptive average pooling to (scale, scale), as two matrix products."""
        if isinstance(size, str):
            rows, columns = (self._pooling_weights(scale, size, axis) for axis in (0, 1))
            columns = self.add("Transpose", [columns], perm=[1, 0])
        else:
            by_axis = [pooling_weights(scale, n, n) for n in size]
            rows, columns = self.constant(by_axis[0]), self.constant(by_axis[1].T)
        return self.add("MatMul", [self.add("MatMul", [rows, x]), columns])

    def _pooling_weights(self, bins: int, size: str, axis: int) -> str:
        """`models.pooling.pooling_weights` of an axis whose length the graph finds out."""
        n = self.add("Gather", [size, self._integers(axis)], axis=0)
        i = np.arange(bins, dtype=np.int64)[:, None]
        start = self._divided(self.add("Mul", [n, self._integers(i)]), bins)
        end = self.add("Mul", [n, self._integers(i + 1)])
        end = self._divided(self.add("Add", [end, self._integers(bins - 1)]), bins)
        position = self.add("Range", [self._integers(0), n, self._integers(1)])
        behind = self.add("GreaterOrEqual", [position, start])
        covered = self.add("And", [behind, self.add("Less", [position, end])])
        covered = self.add("Cast", [covered], to=onnx.TensorProto.FLOAT)
        count = self.add("Cast", [self.add("Sub", [end, start])], to=onnx.TensorProto.FLOAT)
        return self.add("Div", [covered, count])

    def _divided(self, x: str, divisor: int) -> str:
        return self.add("Div", [x, self._integers(divisor)])

    def _integers(self, value) -> str:
        return self.constant(np.array(value, np.int64))
