"""How the rules build a graph: values, some of them known, and nodes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from adaste_jax.export import _graph_ops
from adaste_jax.export._graph_ops import Graph

BATCH = "batch"


class Value(NamedTuple):
    """A value of the program: computed already, or the output of a node.

    A value that was broadcast is kept as it was before, with axes of size 1: `have` is
    the shape of `source`, `shape` the one it stands for.
    """

    source: np.ndarray | str
    shape: tuple[Any, ...]
    have: tuple[Any, ...]
    dtype: np.dtype

    @property
    def known(self) -> bool:
        """Whether it does not depend on the input."""
        return isinstance(self.source, np.ndarray)

    @property
    def array(self) -> np.ndarray:
        """The numbers of a value that is known."""
        assert isinstance(self.source, np.ndarray)
        return self.source


class Builder:
    """Nodes so far, and how the rules add to them."""

    def __init__(self) -> None:
        self.nodes: list[_graph_ops.Node] = []
        self.specs: dict[str, _graph_ops.Spec] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.where = ""

    def input(self, shape: tuple[Any, ...], dtype: Any) -> Value:
        """The input of the network; integers are widened at once."""
        self.specs["input"] = _graph_ops.Spec(_dims(shape), np.dtype(dtype))
        value = Value("input", shape, shape, np.dtype(dtype))
        wanted = _graph_ops.widened(dtype)
        if value.dtype == wanted:
            return value
        return self.emit("cast", [value], shape, dtype=wanted)

    def constant(self, array: Any) -> Value:
        """A value that is known."""
        array = np.asarray(array)
        array = array.astype(_graph_ops.widened(array.dtype))
        return Value(array, array.shape, array.shape, array.dtype)

    def emit(
        self,
        op: str,
        values: Sequence[Value],
        shape: tuple[Any, ...],
        /,
        *,
        have: tuple[Any, ...] | None = None,
        **attributes: Any,
    ) -> Value:
        """The value of an operation: computed now if all inputs are known.

        Args:
            op: Its name.
            values: Its inputs.
            shape: What the output stands for.
            have: Shape of the output; by default the same.
            **attributes: Of the operation; dimensions may be symbols.
        """
        have = shape if have is None else have
        free = [*have, *attributes.get("shape", ())]
        if all(v.known for v in values) and all(isinstance(d, int) for d in free):
            arrays = [v.source for v in values]
            found = _graph_ops.evaluate(op, arrays, attributes)
            return Value(found, shape, found.shape, found.dtype)
        if "shape" in attributes:
            attributes["shape"] = _dims(attributes["shape"])
        dtype = _graph_ops.dtype_of(op, [v.dtype for v in values], attributes)
        name = f"v{len(self.nodes)}"
        inputs = tuple(self._name(v) for v in values)
        self.nodes.append(_graph_ops.Node(op, inputs, name, attributes, self.where))
        self.specs[name] = _graph_ops.Spec(_dims(have), dtype)
        return Value(name, shape, have, dtype)

    def full(self, value: Value, axes: Sequence[int] | None = None) -> Value:
        """The value with its broadcast axes written out: all, or some."""
        axes = range(len(value.shape)) if axes is None else axes
        have = tuple(
            value.shape[i] if i in axes else size for i, size in enumerate(value.have)
        )
        if have == value.have:
            return value
        return self.emit("expand", [value], value.shape, have=have, shape=have)

    def elementwise(self, op: str, *values: Value, **attributes: Any) -> Value:
        """An operation of each number; shapes broadcast."""
        shape = _broadcast([v.shape for v in values])
        have = _broadcast([v.have for v in values])
        return self.emit(op, values, shape, have=have, **attributes)

    def reshape(self, value: Value, shape: tuple[Any, ...]) -> Value:
        """The numbers in another shape."""
        value = self.full(value)
        if value.shape == tuple(shape):
            return value
        return self.emit("reshape", [value], tuple(shape), shape=tuple(shape))

    def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
        """The axes in another order."""
        permutation = tuple(map(int, permutation))
        if permutation == tuple(range(len(permutation))):
            return value
        shape, have = (
            tuple(sizes[i] for i in permutation) for sizes in (value.shape, value.have)
        )
        return self.emit(
            "transpose", [value], shape, have=have, permutation=permutation
        )

    def cut(
        self,
        value: Value,
        starts: Sequence[int],
        sizes: Sequence[Any],
        strides: Sequence[int],
    ) -> Value:
        """A strided part; along an axis with a symbol for its size, all of it."""
        value = self.full(value)
        if tuple(sizes) == value.shape:
            return value
        limits = []
        for start, size, stride, whole in zip(
            starts, sizes, strides, value.shape, strict=True
        ):
            if isinstance(whole, int):
                limits.append(start + (size - 1) * stride + 1 if size else start)
            elif start or size != whole or stride != 1:
                raise NotImplementedError("it cuts along the batch")
            else:
                limits.append(_graph_ops.WHOLE)
        return self.emit(
            "slice",
            [value],
            tuple(sizes),
            starts=tuple(map(int, starts)),
            limits=tuple(map(int, limits)),
            strides=tuple(map(int, strides)),
        )

    def row(self, value: Value, index: int) -> Value:
        """Entry `index` along the first axis."""
        rank = len(value.shape)
        part = self.cut(
            value,
            [index] + [0] * (rank - 1),
            [1, *value.shape[1:]],
            [1] * rank,
        )
        return self.reshape(part, value.shape[1:])

    def stack(self, parts: Sequence[Value]) -> Value:
        """Values of one shape along a new first axis."""
        rows = [self.reshape(part, (1, *part.shape)) for part in parts]
        return self.join(rows, 0)

    def join(self, values: Sequence[Value], axis: int) -> Value:
        """Values one after another along an axis."""
        values = [self.full(v) for v in values]
        total = sum(v.shape[axis] for v in values)
        shape = (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :])
        return self.emit("concatenate", values, shape, axis=axis)

    def spread(self, x: Value, shape: tuple[Any, ...], have: tuple[Any, ...]) -> Value:
        """The numbers of `x` in the shape `have`, which stand for `shape`."""
        bare = x._replace(shape=x.have)
        if have != x.have:
            bare = self.emit("reshape", [bare], have, shape=have)
        return bare._replace(shape=shape)

    def finish(self, outputs: Sequence[Value], names: dict[str, Any]) -> Graph:
        """The graph; constants that are leaves are called by their paths."""
        written = [self._name(self.full(value)) for value in outputs]
        leaves = {_flat(np.asarray(leaf)): name for name, leaf in names.items()}
        renamed: dict[str, str] = {}
        for old, array in self.constants.items():
            name = leaves.get(_flat(array), old) if array.size > 1 else old
            renamed[old] = old if name in renamed.values() else name
        nodes = [
            node._replace(inputs=tuple(renamed.get(i, i) for i in node.inputs))
            for node in self.nodes
        ]
        constants = {renamed[old]: array for old, array in self.constants.items()}
        written = [renamed.get(name, name) for name in written]
        return Graph(nodes, "input", tuple(written), constants, self.specs)

    def _name(self, value: Value) -> str:
        """The name of a value, which becomes a constant of the graph if it is known."""
        if isinstance(value.source, str):
            return value.source
        name = f"c_{_graph_ops.content(value.source)}"
        self.constants[name] = value.source
        return name


def _dims(shape: Sequence[Any]) -> tuple[int | str, ...]:
    """A shape with the symbols of JAX as text, as `4*batch`."""
    dims = tuple(d if isinstance(d, int) else str(d) for d in shape)
    for dim in dims:
        if isinstance(dim, str) and not (
            dim == BATCH or (dim.endswith(f"*{BATCH}") and dim.split("*")[0].isdigit())
        ):
            raise NotImplementedError(
                f"an axis has the size {dim!r}, which is no multiple of the batch"
            )
    return dims


def _broadcast(shapes: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The shape that several broadcast to."""
    rank = max(map(len, shapes))
    padded = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(
        next((d for d in sizes if not (isinstance(d, int) and d == 1)), 1)
        for sizes in zip(*padded, strict=True)
    )


def _flat(array: np.ndarray) -> str:
    return _graph_ops.content(array.reshape(-1))
