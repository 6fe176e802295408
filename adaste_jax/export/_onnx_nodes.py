"""The operations of a graph as nodes of ONNX.

ONNX has the channels of images after the batch. What lies between convolutions and
pools is computed in that order, and turned around only where something else uses it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from adaste_jax.export import _graph_ops, _onnx_weights
from adaste_jax.export._graph_ops import Graph, Node
from adaste_jax.export._onnx_writer import Writer

_SAME = (
    "abs add and ceil cos div erf exp floor log max min mul neg not or pow round sign "
    "sin sqrt sub tanh where"
)
TYPES = {op: op.capitalize() for op in _SAME.split()} | {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "logistic": "Sigmoid",
    "lt": "Less",
    "ne": "Equal",
}
"""Operations of each number, and their types in ONNX."""

_REDUCTIONS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_sum": "ReduceSum",
}


class Nodes:
    """Writes the nodes of a graph, one after another."""

    def __init__(
        self,
        graph: Graph,
        writer: Writer,
        *,
        fast: bool = False,
        constant: Callable[..., str] = _onnx_weights.constant,
    ) -> None:
        """Starts without nodes; `constant` is how an array is stored."""
        self.graph = graph
        self.writer = writer
        self.fast = fast
        self._store = constant
        self.input = graph.input
        self._last = {graph.input: graph.input}  # names of values, channels last
        self._first: dict[str, str] = {}  # names of values, channels first
        self._known: dict[str, str] = {}  # names of constants

    def write(self, node: Node) -> None:
        """Adds a node."""
        if node.op in ("conv", "max_pool", "sum_pool"):
            self._first[node.output] = self._image(node)
        elif node.op in TYPES and self._in_images(node):
            self._first[node.output] = self._elementwise(node, self.first)
        elif node.op in _REDUCTIONS and node.inputs[0] in self._first:
            rank = len(self.graph.specs[node.inputs[0]].shape)
            order = [0, *range(2, rank), 1]
            axes = sorted(order[i] for i in node.attributes["axes"])
            if 1 not in axes and len(axes) < rank - 2:
                self._last[node.output] = self._other(node)
            else:
                self._last[node.output] = self._reduce(
                    node, self.first(node.inputs[0]), axes
                )
        elif node.op in TYPES:
            self._last[node.output] = self._elementwise(node, self.last)
        else:
            self._last[node.output] = self._other(node)

    def last(self, name: str) -> str:
        """The name in ONNX of a value with its channels last."""
        if name in self.graph.constants:
            return self._constant(name, self.graph.constants[name], "last")
        if name not in self._last:
            rank = len(self.graph.specs[name].shape)
            turned = self.writer.add(
                "Transpose", self._first[name], perm=[0, *range(2, rank), 1]
            )
            self._last[name] = turned
        return self._last[name]

    def first(self, name: str) -> str:
        """The name in ONNX of an image, or of a number for each channel, turned."""
        if name in self.graph.constants:
            array = self.graph.constants[name]
            if array.size > 1:
                array = array.reshape(-1, *[1] * (self._rank - 2))
            return self._constant(name, array, f"first{self._rank}")
        if name not in self._first:
            rank = len(self.graph.specs[name].shape)
            self._first[name] = self.writer.add(
                "Transpose", self._last[name], perm=[0, rank - 1, *range(1, rank - 1)]
            )
        return self._first[name]

    def _constant(self, name: str, array: np.ndarray, form: str) -> str:
        key = f"{name} {form}"
        if key not in self._known:
            self._known[key] = self._store(self.writer, name, array)
        return self._known[key]

    def _in_images(self, node: Node) -> bool:
        """Whether all inputs are images with channels first, or for each channel."""
        shape = self.graph.specs[node.output].shape
        self._rank = len(shape)
        images = [name for name in node.inputs if name in self.graph.specs]
        if self._rank < 3 or not any(name in self._first for name in images):
            return False
        return all(
            self.graph.specs[name].shape == shape
            if name in self.graph.specs
            else self.graph.constants[name].size == 1
            or self.graph.constants[name].shape[-1] == self.graph.constants[name].size
            for name in node.inputs
        )

    def _elementwise(self, node: Node, named: Callable[[str], str]) -> str:
        zero = [
            name in self.graph.constants
            and self.graph.constants[name].dtype == np.float32
            and not self.graph.constants[name].any()
            for name in node.inputs
        ]
        if node.op == "max" and any(zero):
            return self.writer.add("Relu", named(node.inputs[zero.index(False)]))
        found = self.writer.add(TYPES[node.op], *map(named, node.inputs))
        return self.writer.add("Not", found) if node.op == "ne" else found

    def _image(self, node: Node) -> str:
        x, given = node.inputs[0], node.attributes
        pads = [low for low, _ in given["padding"]]
        pads += [high for _, high in given["padding"]]
        common: dict[str, Any] = {"strides": list(given["strides"]), "pads": pads}
        if node.op == "conv":
            return self._conv(node, common)
        window = list(given["window"])
        kind = "MaxPool" if node.op == "max_pool" else "AveragePool"
        if node.op == "sum_pool":
            common["count_include_pad"] = 1
        value = self.writer.add(kind, self.first(x), kernel_shape=window, **common)
        if node.op == "max_pool":
            return value
        count = np.asarray(np.prod(window), np.float32)
        return self.writer.add("Mul", value, self.writer.constant(count))

    def _conv(self, node: Node, common: dict[str, Any]) -> str:
        x, kernel = node.inputs
        spatial = len(common["strides"])
        order = [spatial + 1, spatial, *range(spatial)]
        if kernel in self.graph.constants:
            array = self.graph.constants[kernel].transpose(order)
            weights = self._constant(kernel, array, "conv")
        else:
            weights = self.writer.add("Transpose", self.last(kernel), perm=order)
        return self.writer.add(
            "Conv",
            self.first(x),
            weights,
            kernel_shape=list(self._shape(kernel)[:spatial]),
            dilations=list(node.attributes["dilation"]),
            group=node.attributes["groups"],
            **common,
        )

    def _shape(self, name: str) -> tuple[_graph_ops.Dim, ...]:
        if name in self.graph.constants:
            return self.graph.constants[name].shape
        return self.graph.specs[name].shape

    def _gelu(self, op: str, x: str) -> str:
        """In the form that ONNX Runtime knows, and runs as one operation."""

        def f(kind: str, y: str, number: float) -> str:
            constant = self.writer.constant(np.asarray(number, np.float32))
            return self.writer.add(kind, y, constant)

        if op == "gelu":
            inner = self.writer.add("Erf", f("Div", x, np.sqrt(2)))
            whole = self.writer.add("Mul", x, f("Add", inner, 1))
            return f("Mul", whole, 0.5)
        square = f("Add", self.writer.add("Mul", f("Mul", x, 0.044715), x), 1)
        scaled = self.writer.add("Mul", square, f("Mul", x, np.sqrt(2 / np.pi)))
        share = f("Add", self.writer.add("Tanh", scaled), 1)
        return self.writer.add("Mul", share, f("Mul", x, 0.5))

    def _reduce(self, node: Node, x: str, axes: list[int]) -> str:
        return self.writer.add(
            _REDUCTIONS[node.op], x, self.writer.integers(*axes), keepdims=0
        )

    def _other(self, node: Node) -> str:
        writer, given, op = self.writer, node.attributes, node.op
        if op == "matmul" and self.fast and node.inputs[1] in self.graph.constants:
            name = node.inputs[1]
            weights = self.graph.constants[name]
            found = weights.ndim == 2 and _onnx_weights.fast_product(
                writer, self.last(node.inputs[0]), name, weights
            )
            if found:
                return found
        inputs = [self.last(name) for name in node.inputs]
        if op == "matmul":
            return writer.add("MatMul", *inputs)
        if op in ("gelu", "gelu_tanh"):
            return self._gelu(op, *inputs)
        if op == "softmax":
            return writer.add("Softmax", *inputs, axis=-1)
        if op == "layer_norm":
            epsilon = given["epsilon"]
            return writer.add("LayerNormalization", *inputs, axis=-1, epsilon=epsilon)
        if op == "rem":
            return writer.add("Mod", *inputs, fmod=1)
        if op == "cast":
            return writer.cast(inputs[0], given["dtype"])
        if op == "reshape":
            sizes = given["shape"]
            free = [d for d in sizes if not isinstance(d, int)]
            if len(free) > 1:
                return writer.add("Reshape", *inputs, writer.shape(sizes, self.input))
            whole = [d if isinstance(d, int) else -1 for d in sizes]
            return writer.add("Reshape", *inputs, writer.integers(*whole))
        if op == "expand":
            return writer.add(
                "Expand", *inputs, writer.shape(given["shape"], self.input)
            )
        if op == "transpose":
            return writer.add("Transpose", *inputs, perm=list(given["permutation"]))
        if op == "slice":
            axes = range(len(given["starts"]))
            rows = [given[k] for k in ("starts", "limits")] + [axes, given["strides"]]
            return writer.add("Slice", *inputs, *(writer.integers(*r) for r in rows))
        if op == "pad":
            dtype = self.graph.specs[node.output].dtype
            value = writer.constant(np.asarray(given["value"], dtype))
            pads = writer.integers(*given["low"], *given["high"])
            return writer.add("Pad", *inputs, pads, value)
        if op == "concatenate":
            return writer.add("Concat", *inputs, axis=given["axis"])
        if op == "take":
            return writer.add("Gather", *inputs, axis=given["axis"])
        if op in _REDUCTIONS:
            return self._reduce(node, inputs[0], list(given["axes"]))
        kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[op]
        return writer.cast(
            writer.add(kind, *inputs, axis=given["axis"], keepdims=0), int
        )
