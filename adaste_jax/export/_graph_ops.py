"""What the operations of a graph compute, in NumPy and for any batch."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WHOLE = 2**31 - 1
"""The limit of a slice that takes an axis to its end."""

Dim = int | str
"""A size, or a multiple of the batch, as `"batch"` or `"4*batch"`."""


class Spec(NamedTuple):
    """Shape and dtype of a value."""

    shape: tuple[Dim, ...]
    dtype: np.dtype


class Node(NamedTuple):
    """One operation; see the table in `_graph`."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    where: str  # the module it is part of, as Flax names it, or ""


class Graph(NamedTuple):
    """A network: nodes in the order in which they can be run."""

    nodes: list[Node]
    input: str
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]
    specs: dict[str, Spec]  # of the input and of the output of every node


def run(graph: Graph, inputs: Any) -> list[np.ndarray]:
    """The outputs of a graph, one operation after another. Slow: for checks.

    Args:
        graph: The graph.
        inputs: A batch.
    """
    values = {**graph.constants, graph.input: np.asarray(inputs)}
    for node in graph.nodes:
        attributes = dict(node.attributes)
        if "shape" in attributes:
            attributes["shape"] = resolve(attributes["shape"], len(inputs))
        arrays = [values[name] for name in node.inputs]
        values[node.output] = evaluate(node.op, arrays, attributes)
    return [values[name] for name in graph.outputs]


def evaluate(op: str, arrays: Sequence[Any], attributes: Any) -> np.ndarray:
    """What an operation makes of arrays."""
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[op](*arrays, **attributes))


def factor(dim: Dim) -> int | None:
    """How many times the batch a dimension is; None for a plain size."""
    if isinstance(dim, int):
        return None
    return int(dim.split("*")[0]) if "*" in dim else 1


def resolve(shape: Sequence[Dim], batch: int) -> tuple[int, ...]:
    """A shape for a batch of one size."""
    return tuple(d if isinstance(d, int) else (factor(d) or 0) * batch for d in shape)


def fixed(graph: Graph, batch: int) -> Graph:
    """The graph for one size of the batch."""
    specs = {
        name: spec._replace(shape=resolve(spec.shape, batch))
        for name, spec in graph.specs.items()
    }
    nodes = [
        node._replace(
            attributes=node.attributes
            | {"shape": resolve(node.attributes["shape"], batch)}
        )
        if "shape" in node.attributes
        else node
        for node in graph.nodes
    ]
    return graph._replace(nodes=nodes, specs=specs)


def widened(dtype: Any) -> np.dtype:
    """The dtype that a graph has for one of JAX: float32, int32 or bool."""
    for kind, wide in ((jnp.floating, np.float32), (jnp.integer, np.int32)):
        if jnp.issubdtype(dtype, kind):
            return np.dtype(wide)
    if np.dtype(dtype) == np.bool_:
        return np.dtype(np.bool_)
    raise NotImplementedError(f"numbers of dtype {dtype} are not known")


def dtype_of(op: str, inputs: Sequence[np.dtype], attributes: Any) -> np.dtype:
    """The dtype of an output."""
    if op == "cast":
        dtype: np.dtype = np.dtype(attributes["dtype"])
        return dtype
    if op in ("eq", "ne", "lt", "le", "gt", "ge"):
        return np.dtype(np.bool_)
    if op in ("argmax", "argmin"):
        return np.dtype(np.int32)
    return inputs[1 if op == "where" else 0]


def content(array: np.ndarray) -> str:
    """A name for an array that equal arrays share."""
    data = np.ascontiguousarray(array).tobytes()
    text = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(text + data).hexdigest()[:16]


def _slice(x: Any, *, starts: Any, limits: Any, strides: Any) -> Any:
    return x[tuple(map(slice, starts, limits, strides))]


def _pad(x: Any, *, low: Any, high: Any, value: Any) -> Any:
    pairs = list(zip(low, high, strict=True))
    return np.pad(x, pairs, constant_values=np.asarray(value, x.dtype))


def _softmax(x: Any) -> Any:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _layer_norm(x: Any, scale: Any, *, epsilon: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    spread = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(spread + np.float32(epsilon)) * scale


def _gelu(x: Any) -> Any:
    return np.float32(0.5) * x * (1 + jax.scipy.special.erf(x / np.float32(np.sqrt(2))))


def _gelu_tanh(x: Any) -> Any:
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _divide(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        return x / y
    return np.trunc(x / y).astype(x.dtype)


def _conv(
    x: Any, kernel: Any, *, strides: Any, padding: Any, dilation: Any, groups: Any
) -> Any:
    spatial = "".join("DHW"[-(x.ndim - 2) :])
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=layout,
        feature_group_count=groups,
    )


def _pool(start: float, combine: Callable[..., Any]) -> Callable[..., Any]:
    def pool(x: Any, *, window: Any, strides: Any, padding: Any) -> Any:
        whole = ((1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0)))
        first = np.asarray(start, x.dtype)
        return jax.lax.reduce_window(x, first, combine, *whole)

    return pool


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": jax.scipy.special.erf,
    "exp": np.exp,
    "floor": np.floor,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "log": np.log,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "neg": np.negative,
    "not": np.logical_not,
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "add": np.add,
    "and": np.logical_and,
    "div": _divide,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "or": np.logical_or,
    "pow": np.power,
    "rem": np.fmod,
    "sub": np.subtract,
    "where": np.where,
    "cast": lambda x, *, dtype: x.astype(dtype),
}
"""Operations of each number; shapes broadcast."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    "reshape": lambda x, *, shape: x.reshape(shape),
    "expand": lambda x, *, shape: np.broadcast_to(x, shape),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "slice": _slice,
    "pad": _pad,
    "concatenate": lambda *xs, axis: np.concatenate(xs, axis),
    "take": lambda x, indices, *, axis: np.take(x, indices, axis),
    "reduce_sum": lambda x, *, axes: x.sum(axes, dtype=x.dtype),
    "reduce_max": lambda x, *, axes: x.max(axes),
    "reduce_min": lambda x, *, axes: x.min(axes),
    "argmax": lambda x, *, axis: x.argmax(axis).astype(np.int32),
    "argmin": lambda x, *, axis: x.argmin(axis).astype(np.int32),
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "matmul": np.matmul,
    "conv": _conv,
    "max_pool": _pool(-np.inf, jax.lax.max),
    "sum_pool": _pool(0, jax.lax.add),
}
"""Every operation by its name."""
