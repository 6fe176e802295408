"""Softmax, layer norm and GELU, which JAX writes in small operations, as one each.

A pattern is the name of a hole, which is the same value everywhere, or an operation
followed by the patterns of its inputs. The inputs of `add`, `mul`, `max` may stand in
either order. A number is a constant of that value, a name that begins with "#" any
constant. `reshape` and `reduce_*` keep, or take away, the last axis.
"""

from typing import Any

import numpy as np

from adaste_jax.export._graph_ops import Graph, Node

_TOP = ("max", -np.inf, ("reduce_max", "x"))
_EXP = ("exp", ("sub", "x", ("reshape", _TOP)))
_MEAN = ("div", ("reduce_sum", "x"), "#count")
_SQUARES = ("div", ("reduce_sum", ("mul", "x", "x")), "#count")
_SPREAD = ("max", 0.0, ("sub", _SQUARES, ("mul", _MEAN, _MEAN)))
_CENTRED = ("sub", "x", ("reshape", _MEAN))
_SLOW = ("div", ("reduce_sum", ("mul", _CENTRED, _CENTRED)), "#count")


def _inverse(spread: Any) -> Any:
    return ("div", 1.0, ("sqrt", ("add", ("reshape", spread), "#epsilon")))


_CUBE = ("mul", 0.044715, ("mul", ("mul", "x", "x"), "x"))
_TANH = ("tanh", ("mul", float(np.sqrt(2 / np.pi)), ("add", "x", _CUBE)))
_ERFC = ("sub", 1.0, ("erf", ("mul", ("neg", "x"), float(np.sqrt(0.5)))))

PATTERNS: dict[str, list[Any]] = {
    "softmax": [("div", _EXP, ("reshape", ("reduce_sum", _EXP)))],
    "layer_norm": [
        ("mul", _CENTRED, ("mul", _inverse(spread), "#scale"))
        for spread in (_SPREAD, _SLOW)
    ]
    + [("mul", _CENTRED, _inverse(spread)) for spread in (_SPREAD, _SLOW)],
    "gelu_tanh": [("mul", "x", ("mul", 0.5, ("add", 1.0, _TANH)))],
    "gelu": [("mul", ("mul", 0.5, "x"), _ERFC)],
}
"""What each operation is made of."""

_GELU = {"gelu_tanh", "gelu"}


def raise_patterns(graph: Graph) -> Graph:
    """The graph with `softmax` and `layer_norm` in the place of what computes them."""
    made = {node.output: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        for op, patterns in PATTERNS.items():
            holes = next(
                (h for p in patterns if (h := _match(graph, made, p, node.output, {}))),
                None,
            )
            if holes is not None:
                node = _raised(graph, node, op, holes) or node
                break
        nodes.append(node)
    return graph._replace(nodes=nodes)


def _raised(graph: Graph, node: Node, op: str, holes: dict[str, str]) -> Node | None:
    """The operation, if the numbers in the holes are what it takes."""
    spec = graph.specs[node.output]
    if graph.specs.get(holes["x"]) != spec:
        return None
    if op in _GELU:
        return node._replace(op=op, inputs=(holes["x"],))
    size = spec.shape[-1]
    if not isinstance(size, int):
        return None
    if op == "softmax":
        return node._replace(op=op, inputs=(holes["x"],))
    count, epsilon = (graph.constants[holes[h]] for h in ("#count", "#epsilon"))
    scale = graph.constants.get(holes.get("#scale", ""), np.ones((), np.float32))
    if count.size != 1 or count.item() != size or epsilon.size != 1:
        return None
    if scale.size not in (1, size) or (scale.size > 1 and scale.shape[-1] != size):
        return None
    attributes = {"epsilon": float(epsilon.item())}
    name = f"{holes.get('#scale', node.output)}.{size}"
    graph.constants[name] = np.broadcast_to(scale.reshape(-1), (size,)).copy()
    return node._replace(op=op, inputs=(holes["x"], name), attributes=attributes)


def _match(
    graph: Graph, made: dict[str, Node], pattern: Any, name: str, holes: dict[str, str]
) -> dict[str, str] | None:
    """The values in the holes of a pattern that ends in `name`; None if it does not."""
    if isinstance(pattern, float):
        constant = graph.constants.get(name)
        same = constant is not None and constant.size and (constant == pattern).all()
        return holes if same else None
    if isinstance(pattern, str):
        if pattern.startswith("#") and name not in graph.constants:
            return None
        return holes | {pattern: name} if holes.get(pattern, name) == name else None
    op, *parts = pattern
    node = made.get(name)
    if node is None or node.op != op or not _on_last_axis(graph, node):
        return None
    orders = [node.inputs]
    if op in ("add", "mul", "max"):
        orders.append(node.inputs[::-1])
    for inputs in orders:
        found: dict[str, str] | None = holes
        for part, one in zip(parts, inputs, strict=True):
            if found is not None:
                found = _match(graph, made, part, one, found)
        if found is not None:
            return found
    return None


def _on_last_axis(graph: Graph, node: Node) -> bool:
    """Whether it reduces the last axis, or puts one of size 1 there by a reshape."""
    if node.op not in ("reshape", "reduce_sum", "reduce_max"):
        return True
    spec = graph.specs.get(node.inputs[0])
    if spec is None:
        return False
    if node.op == "reshape":
        return graph.specs[node.output].shape == (*spec.shape, 1)
    return bool(node.attributes["axes"] == (len(spec.shape) - 1,))
