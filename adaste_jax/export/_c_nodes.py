"""A network as statements of C: one loop for each value that is kept in memory.

What has one user, which needs number i of it for its own number i, is computed there
and kept nowhere: of a dense layer, its norm and its activation only the last is kept.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from adaste_jax.export import _c_memory, _c_text, _c_weights, _graph_ops
from adaste_jax.export._c_memory import Step
from adaste_jax.export._c_text import total
from adaste_jax.export._graph_ops import Graph, Node

Index = Sequence[str]
"""Expressions of C, one for each axis; or one alone, which counts in C order."""

Rule = Callable[["Writer", Node, Index], str]
RowRule = Callable[["Writer", Node, Index], tuple[str, str]]


class Writer:
    """Statements so far, and where values are."""

    def __init__(
        self,
        graph: Graph,
        packed: Mapping[str, _c_weights.Packed],
        rules: Mapping[str, Rule],
        rows: Mapping[str, RowRule],
    ) -> None:
        self.graph = graph
        self._rules, self._row_rules = rules, rows
        self.packed = packed
        self.lines: list[str] = []
        self.tables: list[str] = []
        self.constants = 0  # bytes of all tables
        self.called: set[str] = set()
        self.rows: dict[str, tuple[str, str]] = {}  # what holds for a row of a value
        self.shape = _c_memory.shapes(graph)
        self._plan = _c_memory.plan(graph)
        self.memory = self._plan.memory
        self._made = {node.output: node for node in graph.nodes}
        self._known: dict[str, str] = {}
        self._taken: set[str] = set()
        self._depth = 1
        self._count = 0

    def write(self) -> None:
        """Writes all statements."""
        for step in self._plan.steps:
            self._loop(step)
        (name,) = self.graph.outputs
        if self._plan.places.get(name, ("", 0))[0] != "output":  # it was there already
            with self.loops([math.prod(self.shape[name])]) as index:
                self.say(f"output[{index[0]}] = {self.at(name, index)};")

    def _loop(self, step: Step) -> None:
        """The loop of a value that is kept."""
        name = step.node.output
        shape: Sequence[int] = self.shape[name]
        if all(
            one.op in _graph_ops.ELEMENTWISE
            and all(self.shape[i] == shape or self.size(i) == 1 for i in one.inputs)
            for one in step.tree
        ):
            shape = [math.prod(shape)]
        if step.node.where:
            self.say(f"/* {_c_weights.plain(step.node.where)} */")
        with self.loops(shape[:-1]) as outer:
            for one in step.tree:
                if one.op in self._row_rules:
                    self.rows[one.output] = self._row_rules[one.op](self, one, outer)
            with self.loops(shape[-1:]) as inner:
                index = [*outer, *inner]
                value = self.number(step.node, index)
                array, _ = self._plan.places[name]
                self.say(f"{array}[{self.offset(name, index)}] = {value};")

    @contextlib.contextmanager
    def loops(self, sizes: Sequence[int], stem: str = "i") -> Iterator[list[str]]:
        """Statements within loops; one of one turn is no loop."""
        index = [self.name(stem) if size > 1 else "0" for size in sizes]
        with contextlib.ExitStack() as stack:
            for i, size in zip(index, sizes, strict=True):
                turns = f"for (int32_t {i} = 0; {i} < {size}; {i}++)"
                stack.enter_context(self.block(turns if size > 1 else ""))
            yield index

    @contextlib.contextmanager
    def block(self, condition: str) -> Iterator[None]:
        """Statements in braces after a condition; as they are if there is none."""
        if condition:
            self.say(f"{condition} {{")
        self._depth += bool(condition)
        yield
        self._depth -= bool(condition)
        if condition:
            self.say("}")

    def say(self, line: str) -> None:
        """Adds a line."""
        self.lines.append("    " * self._depth + line)

    def name(self, stem: str) -> str:
        """A name of a variable."""
        self._count += 1
        return f"{stem}{self._count}"

    def keep(self, value: str, kind: str, *, const: bool = True) -> str:
        """A variable with a value."""
        if const and value.isidentifier():
            return value
        name = self.name("x")
        self.say(f"{'const ' * const}{kind} {name} = {value};")
        return name

    def call(self, function: str, *arguments: str) -> str:
        """A call of a function, which the header is then to have."""
        self.called |= _c_text.needs(f"{function}(")
        return f"{function}({', '.join(arguments)})"

    def size(self, name: str) -> int:
        """How many numbers a value has."""
        return math.prod(self.shape[name])

    def dtype(self, name: str) -> np.dtype:
        """Of a value or a constant."""
        return _c_memory.dtype_of(self.graph, name)

    def kind(self, name: str) -> str:
        """The type of C of a value."""
        return _c_weights.INPUTS[self.dtype(name).name]

    def at(self, name: str, index: Index) -> str:
        """One number of a value. An index of one entry counts in C order."""
        if name in self.graph.constants:
            array = self.graph.constants[name]
            if array.size == 1:
                return _c_weights.literal(array.reshape(-1)[0])
            return f"{self.table(name, array)}[{self.offset(name, index)}]"
        if name in self._plan.places:
            return f"{self._plan.places[name][0]}[{self.offset(name, index)}]"
        return self.number(self._made[name], index)

    def number(self, node: Node, index: Index) -> str:
        """One number of what a node makes."""
        return self._rules[node.op](self, node, index)

    def pointer(self, name: str, index: Index) -> str:
        """Where a number of a value lies in memory."""
        array = self._plan.places[name][0]
        offset = self.offset(name, index)
        return array if offset == "0" else f"{array} + {offset}"

    def offset(self, name: str, index: Index) -> str:
        """The place of a number in its array."""
        shape = self.shape[name]
        if self.size(name) == 1:
            index = ["0"] * len(index)
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        if len(index) == 1:
            strides = [1]
        start = self._plan.places.get(name, ("", 0))[1]
        return total(*zip(index, strides, strict=True), (str(start), 1))

    def table(self, name: str, array: np.ndarray) -> str:
        """The name in C of an array of constants."""
        if name not in self._known:
            self._known[name] = _c_weights.identifier(name, self._taken)
            self.constants += array.nbytes
            self.tables.append(_c_weights.table(self._known[name], array))
        return self._known[name]
