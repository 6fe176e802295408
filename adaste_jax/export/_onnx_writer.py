"""How an ONNX model is put together: nodes, constants, names."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from adaste_jax.export import _graph_ops


class Writer:
    """Nodes and constants so far; equal constants are stored once."""

    def __init__(self) -> None:
        """Raises ImportError if onnx is not installed."""
        try:
            import onnx
        except ImportError as error:
            raise ImportError(
                'writing ONNX needs onnx: pip install "adaste_jax[onnx]"'
            ) from error
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self._names: set[str] = set()
        self._renamed: dict[str, str] = {}

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output.

        Args:
            op: Its type.
            *inputs: Names of values.
            domain: Of the type; "" is ONNX itself.
            **attributes: Of the node.

        Returns:
            The name of the output.
        """
        output = self.name(op)
        node = self.onnx.helper.make_node(
            op, list(inputs), [output], domain=domain or None, **attributes
        )
        self.nodes.append(node)
        return output

    def constant(self, array: Any, name: str = "") -> str:
        """The name of an array that is stored as it is."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = _graph_ops.content(array)
        if key not in self.tensors:
            tensor = self.onnx.numpy_helper.from_array(array, self.name(name or "c"))
            self.tensors[key] = tensor
        return str(self.tensors[key].name)

    def integers(self, *values: int) -> str:
        """The name of a vector of whole numbers, as shapes and axes are given."""
        return self.constant(np.asarray(values, np.int64))

    def cast(self, value: str, dtype: Any) -> str:
        """The name of a value in another dtype; `int` is int32."""
        dtype = np.dtype(np.int32 if dtype is int else dtype)
        to = self.onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return self.add("Cast", value, to=to)

    def shape(self, dims: Iterable[_graph_ops.Dim], like: str) -> str:
        """The name of a shape in which one size may be a multiple of the batch.

        Args:
            dims: The sizes.
            like: Name of a value whose first axis is the batch.
        """
        parts, pieces = [], list(dims)
        if all(isinstance(d, int) for d in pieces):
            return self.integers(*map(int, pieces))
        batch = self.add("Shape", like, start=0, end=1)
        for dim in pieces:
            times = _graph_ops.factor(dim)
            if times is None:
                parts.append(self.integers(int(dim)))
            elif times == 1:
                parts.append(batch)
            else:
                parts.append(self.add("Mul", batch, self.integers(times)))
        return self.add("Concat", *parts, axis=0)

    def rename(self, value: str, name: str) -> None:
        """Gives a value another name; if a node does not make it, as a copy.

        Args:
            value: Its name.
            name: The new one, which is that of an output of the model.
        """
        known = self._renamed.get(value, value)
        if known != value or not any(value in node.output for node in self.nodes):
            copy = self.onnx.helper.make_node("Identity", [known], [name])
            self.nodes.append(copy)
            return
        self._renamed[value] = name
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if n == value else n for n in names]

    def name(self, stem: str) -> str:
        """A name that is not taken."""
        if stem.partition("_")[0] in ("input", "output"):  # of the model
            stem = f"c_{stem}"
        name, number = stem, 0
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name
