"""Which values of a network are kept in memory, and where."""

import collections
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from adaste_jax.export import _c_weights, _graph_ops
from adaste_jax.export._graph_ops import Graph, Node


class Step(NamedTuple):
    """A value that is kept, and what is computed for it and kept nowhere."""

    node: Node
    tree: list[Node]  # this node, and those within


class Plan(NamedTuple):
    """Steps one after another, and where values are."""

    steps: list[Step]
    places: dict[str, tuple[str, int]]  # of a value: the array, and where it begins
    memory: dict[str, int]  # by type of C: how many numbers are kept at once


ARRAYS = {
    kind: f"memory_{kind.removesuffix('_t')}" for kind in _c_weights.TYPES.values()
}
"""The array of values of each type."""


def shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of all values and constants, for one example."""
    found = {name: array.shape for name, array in graph.constants.items()}
    for name, spec in graph.specs.items():
        found[name] = _graph_ops.resolve(spec.shape, 1)
    return found


def dtype_of(graph: Graph, name: str) -> np.dtype:
    """The dtype of a value or a constant."""
    return (graph.specs if name in graph.specs else graph.constants)[name].dtype


def plan(graph: Graph) -> Plan:
    """Lays the values of a graph out, each at the first place where it fits."""
    shape = shapes(graph)
    made = {node.output: node for node in graph.nodes}
    users = collections.defaultdict(list)
    for node in graph.nodes:
        for name in node.inputs:
            users[name].append(node)

    def within(name: str) -> bool:
        """Whether it is computed where it is used."""
        if name not in made or name in graph.outputs or len(users[name]) != 1:
            return False
        (user,) = users[name]
        same = shape[user.output] == shape[name] and user.op in _graph_ops.ELEMENTWISE
        return same and made[name].op != "reshape"

    def tree(node: Node) -> list[Node]:
        parts = [tree(made[name]) for name in node.inputs if within(name)]
        return [node, *(one for part in parts for one in part)]

    def source(name: str) -> str:
        """The value whose memory it has: a reshape moves nothing."""
        while name in made and made[name].op == "reshape":
            name = made[name].inputs[0]
        return name

    kept = [n for n in graph.nodes if n.op != "reshape" and not within(n.output)]
    steps = [Step(node, tree(node)) for node in kept]
    last = {}
    for time, step in enumerate(steps):
        for one in step.tree:
            last.update({source(n): time for n in one.inputs if not within(n)})
    places = {source(name): ("output", 0) for name in graph.outputs}
    places[graph.input] = ("input", 0)
    memory = dict.fromkeys(ARRAYS, 0)
    live: dict[str, dict[str, tuple[int, int]]] = {kind: {} for kind in ARRAYS}
    for time, step in enumerate(steps):
        name = step.node.output
        kind = _c_weights.TYPES[dtype_of(graph, name).name]
        size, spans = math.prod(shape[name]), live[kind]
        if name not in places:
            for old in _overwritten(step, shape, source):
                if old in spans and last[old] == time:
                    spans[name] = spans.pop(old)
                    break
            else:
                spans[name] = _fit(spans.values(), size)
            places[name] = (ARRAYS[kind], spans[name][0])
            memory[kind] = max(memory[kind], spans[name][1])
        for held in live.values():
            for old in [old for old in held if last.get(old, -1) <= time]:
                del held[old]
    for node in graph.nodes:
        if node.op == "reshape":
            places[node.output] = places[source(node.output)]
    return Plan(steps, places, memory)


def _overwritten(
    step: Step, shape: dict[str, tuple[int, ...]], source: Callable[[str], str]
) -> list[str]:
    """Values of which a step reads number i for its own number i and nothing else."""
    found, others = [], set()
    for one in step.tree:
        for name in one.inputs:
            alike = shape[name] == shape[step.node.output]
            if alike and one.op in _graph_ops.ELEMENTWISE:
                found.append(source(name))
            else:
                others.add(source(name))
    return [name for name in found if name not in others]


def _fit(spans: Iterable[tuple[int, int]], size: int) -> tuple[int, int]:
    """The first gap between spans that is large enough."""
    begin = 0
    for start, end in sorted(spans):
        if begin + size <= start:
            break
        begin = max(begin, end)
    return begin, begin + size
