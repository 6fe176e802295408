"""What is rewritten in a graph after the walk, so that exporters see few patterns."""

import collections

import numpy as np

from adaste_jax.export import _graph_ops, _graph_patterns
from adaste_jax.export._graph_ops import Graph, Node, Spec


def clean(graph: Graph) -> Graph:
    """Larger operations from small ones, norms as a scale and a shift, no leftovers."""
    for rewrite in (_pools, _graph_patterns.raise_patterns, fold_affine, _used):
        graph = rewrite(graph)
    return graph


def _users(graph: Graph) -> collections.Counter[str]:
    """How often each value is used."""
    used = collections.Counter(name for node in graph.nodes for name in node.inputs)
    used.update(graph.outputs)
    return used


def _pools(graph: Graph) -> Graph:
    """The maximum of the strided slices of one image becomes `max_pool`."""
    made = {node.output: node for node in graph.nodes}
    used = _users(graph)

    def leaves(name: str) -> list[str]:
        node = made.get(name)
        if node is None or node.op != "max" or used[name] > 1:
            return [name]
        return [leaf for one in node.inputs for leaf in leaves(one)]

    nodes = []
    for node in graph.nodes:
        if node.op == "max":
            parts = [made.get(leaf) for one in node.inputs for leaf in leaves(one)]
            slices = [part for part in parts if part and part.op == "slice"]
            if len(slices) == len(parts):
                node = _pool_of(graph, node, slices) or node
        nodes.append(node)
    return graph._replace(nodes=nodes)


def _pool_of(graph: Graph, node: Node, slices: list[Node]) -> Node | None:
    """The pool that is the maximum of slices, if they are the places of one window."""
    first = slices[0]
    strides = first.attributes["strides"]
    rank = len(strides)
    starts = [part.attributes["starts"] for part in slices]
    window = tuple(max(s[i] for s in starts) + 1 for i in range(rank))
    if (
        {part.inputs for part in slices} != {first.inputs}
        or {part.attributes["strides"] for part in slices} != {strides}
        or {graph.specs[part.output].shape for part in slices}
        != {graph.specs[first.output].shape}
        or rank < 3
        or sorted(starts) != list(np.ndindex(*window))
        or [window[0], window[-1], strides[0], strides[-1]] != [1] * 4
    ):
        return None
    whole = graph.specs[first.inputs[0]].shape
    out = graph.specs[node.output].shape
    for size, width, stride, rest in zip(whole, window, strides, out, strict=True):
        fits = size == rest
        if isinstance(size, int) and isinstance(rest, int):
            fits = (size - width) // stride + 1 == rest
        if not fits:
            return None
    attributes = {
        "window": window[1:-1],
        "strides": tuple(strides[1:-1]),
        "padding": ((0, 0),) * (rank - 2),
    }
    return node._replace(op="max_pool", inputs=first.inputs, attributes=attributes)


def _step(node: Node, graph: Graph) -> tuple[str, np.ndarray, np.ndarray] | None:
    """x, a and b of a node that is a x + b, with constants for the channels."""
    if node.op not in ("add", "sub", "mul", "div"):
        return None
    known = [name in graph.constants for name in node.inputs]
    if sum(known) != 1:
        return None
    x = node.inputs[known.index(False)]
    c = graph.constants[node.inputs[known.index(True)]]
    spec = graph.specs[x]
    channels = c.ndim == 0 or (c.ndim <= len(spec.shape) and c.size == c.shape[-1])
    if not channels or spec != graph.specs[node.output] or c.dtype != np.float32:
        return None
    c = c.astype(np.float64).reshape(-1) if c.ndim else c.astype(np.float64)
    one, zero = np.ones_like(c), np.zeros_like(c)
    if node.op == "add":
        return x, one, c
    if node.op == "sub":
        return (x, one, -c) if known[1] else (x, -one, c)
    if node.op == "mul":
        return x, c, zero
    return (x, 1 / c, zero) if known[1] and c.all() else None


def fold_affine(graph: Graph) -> Graph:
    """Neighbouring scales and shifts become one `mul` and one `add`."""
    used = _users(graph)
    found: dict[str, tuple[str, np.ndarray, np.ndarray, int]] = {}
    constants, specs = dict(graph.constants), dict(graph.specs)
    swallowed: set[str] = set()
    for node in graph.nodes:
        step = _step(node, graph)
        if step is None:
            continue
        x, a, b = step
        count = 1
        if x in found and used[x] == 1:
            swallowed.add(x)
            x, a_before, b_before, count = found[x]
            a, b, count = a * a_before, a * b_before + b, count + 1
        found[node.output] = (x, a, b, count)
    nodes = []
    for node in graph.nodes:
        if node.output in swallowed:
            continue
        if node.output not in found or found[node.output][3] < 2:
            nodes.append(node)
            continue
        x, a, b, _ = found[node.output]
        steps = [("mul", a)] * bool((a != 1).any()) + [("add", b)] * bool(b.any())
        for number, (op, value) in enumerate(steps or [("add", np.zeros(()))]):
            value = np.asarray(value, np.float32)
            name = f"c_{_graph_ops.content(value)}"
            constants[name] = value
            last = number + 1 >= len(steps)
            output = node.output if last else f"{node.output}_scaled"
            specs[output] = Spec(*graph.specs[node.output])
            nodes.append(Node(op, (x, name), output, {}, node.where))
            x = output
    return graph._replace(nodes=nodes, constants=constants, specs=specs)


def _used(graph: Graph) -> Graph:
    """The graph without what leads to no output."""
    needed = set(graph.outputs)
    nodes = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            nodes.append(node)
            needed.update(node.inputs)
    nodes.reverse()
    kept = {graph.input, *(node.output for node in nodes)}
    return graph._replace(
        nodes=nodes,
        constants={k: v for k, v in graph.constants.items() if k in needed},
        specs={k: v for k, v in graph.specs.items() if k in kept},
    )
