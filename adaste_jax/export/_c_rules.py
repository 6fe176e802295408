"""One rule for each operation of a graph: how one of its numbers is computed in C.

A rule takes the writer, the node and the index of the number, as expressions of C. It
may write statements, and returns an expression. What it reads by index is in memory or
a constant, except for operations of each number.
"""

import numpy as np

from adaste_jax.export import _c_layers, _c_memory, _c_text, _c_weights, _graph_ops
from adaste_jax.export._c_nodes import Index, RowRule, Rule, Writer
from adaste_jax.export._c_text import total
from adaste_jax.export._graph_ops import Graph, Node

_FLOATS = {
    "abs": "{0} < 0 ? -{0} : {0}",
    "ceil": "-round_down(-{0})",
    "exp": "exponential({0})",
    "floor": "round_down({0})",
    # x (1 + tanh u) / 2 is x / (1 + exp(-2 u)); u = sqrt(2 / pi) (x + 0.044715 x^3)
    "gelu_tanh": "{0} / (1 + exponential(-1.5957691f * {0}"
    " * (1 + 0.044715f * {0} * {0})))",
    "logistic": "1 / (1 + exponential(-{0}))",
    "neg": "-{0}",
    "round": "round_even({0})",
    "sign": "{0} != {0} ? {0} : (float)(({0} > 0) - ({0} < 0))",
    "sqrt": "root({0})",
    "tanh": "1 - 2 / (exponential(2 * {0}) + 1)",
    "add": "{0} + {1}",
    "div": "{0} / {1}",
    "max": "{0} < {1} || {1} != {1} ? {1} : {0}",
    "min": "{0} > {1} || {1} != {1} ? {1} : {0}",
    "mul": "{0} * {1}",
    "sub": "{0} - {1}",
}
_INTEGERS = {
    "abs": "{0} < 0 ? (int32_t)(0 - (uint32_t){0}) : {0}",
    "neg": "(int32_t)(0 - (uint32_t){0})",
    "sign": "({0} > 0) - ({0} < 0)",
    "add": _c_layers.SUM,
    "max": "{0} < {1} ? {1} : {0}",
    "min": "{0} > {1} ? {1} : {0}",
    "mul": _c_layers.PRODUCT,
    "sub": "(int32_t)((uint32_t){0} - (uint32_t){1})",
}
_BOTH = {
    "and": "{0} && {1}",
    "eq": "{0} == {1}",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "le": "{0} <= {1}",
    "lt": "{0} < {1}",
    "ne": "{0} != {1}",
    "not": "!{0}",
    "or": "{0} || {1}",
    "where": "{0} ? {1} : {2}",
}
_CASTS = {"float": "(float){0}", "int32_t": "(int32_t){0}", "uint8_t": "{0} != 0"}


def why_not(graph: Graph, node: Node) -> str | None:
    """Why an operation cannot be written in C; None where it can."""
    if node.op not in RULES and node.op != "reshape":
        return "it is not known"
    if 0 in _c_memory.shapes(graph)[node.output]:
        return "it has no numbers"
    kind = _c_memory.dtype_of(graph, node.inputs[0])
    table = _FLOATS if kind.kind == "f" else _INTEGERS
    known = {*table, *_BOTH, "cast"}
    if node.op in _graph_ops.ELEMENTWISE and node.op not in known:
        if kind.kind == "f":
            return "it needs libm, which the C sources do without"
        return "it is not known for whole numbers"
    return None


def _elementwise(writer: Writer, node: Node, index: Index) -> str:
    flat = len(index) < len(writer.shape[node.output])
    values = [
        writer.at(name, index if flat else _spread(writer, name, index))
        for name in node.inputs
    ]
    kinds = [writer.kind(name) for name in node.inputs]
    kind = writer.kind(node.output)
    if node.op == "cast":
        if (kinds[0], kind) == ("float", "int32_t"):
            return writer.call("to_int", *values)
        form = _CASTS[kind]
    elif node.op in ("max", "min") and node.inputs[1] in writer.graph.constants:
        form = f"{{0}} {'<' if node.op == 'max' else '>'} {{1}} ? {{1}} : {{0}}"
    else:
        form = {**(_FLOATS if kinds[0] == "float" else _INTEGERS), **_BOTH}[node.op]
    writer.called |= _c_text.needs(form)
    for i, name in enumerate(node.inputs):
        if form.count(f"{{{i}}}") > 1 and writer.size(name) > 1:
            values[i] = writer.keep(values[i], kinds[i])
    return writer.keep(form.format(*values), kind)


def _spread(writer: Writer, name: str, index: Index) -> list[str]:
    """The index in a value that is broadcast."""
    shape = writer.shape[name]
    last = index[len(index) - len(shape) :]
    return [i if n > 1 else "0" for i, n in zip(last, shape, strict=True)]


def _expand(writer: Writer, node: Node, index: Index) -> str:
    return writer.at(node.inputs[0], _spread(writer, node.inputs[0], index))


def _transpose(writer: Writer, node: Node, index: Index) -> str:
    places = np.argsort(node.attributes["permutation"])
    return writer.at(node.inputs[0], [index[i] for i in places])


def _slice(writer: Writer, node: Node, index: Index) -> str:
    given = node.attributes
    steps = zip(index, given["starts"], given["strides"], strict=True)
    return writer.at(
        node.inputs[0], [total((i, by), (str(start), 1)) for i, start, by in steps]
    )


def _pad(writer: Writer, node: Node, index: Index) -> str:
    (name,), given = node.inputs, node.attributes
    moved, inside = [], []
    ends = zip(index, given["low"], given["high"], writer.shape[name], strict=True)
    for i, low, high, size in ends:
        moved.append(total((i, 1), (str(-low), 1)))
        inside += [f"{moved[-1]} >= 0"] * bool(low > 0)
        inside += [f"{moved[-1]} < {size}"] * bool(high > 0)
    value = _c_weights.literal(writer.dtype(name).type(given["value"]))
    return f"({' && '.join(inside) or '1'} ? {writer.at(name, moved)} : {value})"


def _concatenate(writer: Writer, node: Node, index: Index) -> str:
    axis, parts, start = node.attributes["axis"], [], 0
    for name in node.inputs:
        here = list(index)
        here[axis] = total((index[axis], 1), (str(-start), 1))
        start += writer.shape[name][axis]
        parts.append(f"{index[axis]} < {start} ? {writer.at(name, here)} : ")
    last = parts.pop().partition(" ? ")[2].removesuffix(" : ")
    return f"({''.join(parts)}{last})"


def _take(writer: Writer, node: Node, index: Index) -> str:
    (x, rows), axis = node.inputs, node.attributes["axis"]
    end = axis + len(writer.shape[rows])
    row = writer.at(rows, index[axis:end])
    if rows not in writer.graph.constants:
        row = writer.call("clip", row, str(writer.shape[x][axis]))
    return writer.at(x, [*index[:axis], row, *index[end:]])


def _reduce(writer: Writer, node: Node, index: Index) -> str:
    (name,), kind = node.inputs, writer.kind(node.output)
    axes, left = node.attributes["axes"], iter(index)
    op = node.op.removeprefix("reduce_")
    start = {"sum": "0", "max": _c_layers.LOWEST[kind], "min": _c_layers.HIGHEST[kind]}[
        op
    ]
    found = writer.keep(start, kind, const=False)
    shape = writer.shape[name]
    with writer.loops([shape[axis] for axis in axes], "k") as inner:
        along = dict(zip(axes, inner, strict=True))
        whole = [along[i] if i in along else next(left) for i in range(len(shape))]
        _c_layers.accumulate(writer, op, found, writer.at(name, whole), kind)
    return found


def _arg(writer: Writer, node: Node, index: Index) -> str:
    (name,), axis = node.inputs, node.attributes["axis"]
    kind, op = writer.kind(name), node.op.removeprefix("arg")
    best = writer.keep("0", "int32_t", const=False)
    better = _c_layers.better(op, kind)
    with writer.loops([writer.shape[name][axis]], "k") as (k,):
        pair = [[*index[:axis], one, *index[axis:]] for one in (k, best)]
        new, old = (writer.keep(writer.at(name, i), kind) for i in pair)
        with writer.block(f"if (({better.format(new, old)}) && {old} == {old})"):
            writer.say(f"{best} = {k};")
    return best


RULES: dict[str, Rule] = {
    **dict.fromkeys(_graph_ops.ELEMENTWISE, _elementwise),
    "argmax": _arg,
    "argmin": _arg,
    "concatenate": _concatenate,
    "conv": _c_layers.conv,
    "expand": _expand,
    "layer_norm": _c_layers.layer_norm,
    "matmul": _c_layers.matmul,
    "max_pool": _c_layers.pool,
    "pad": _pad,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_sum": _reduce,
    "slice": _slice,
    "softmax": _c_layers.softmax,
    "sum_pool": _c_layers.pool,
    "take": _take,
    "transpose": _transpose,
}
"""By the name of the operation; a reshape does nothing."""

ROWS: dict[str, RowRule] = {
    "layer_norm": _c_layers.layer_norm_row,
    "softmax": _c_layers.softmax_row,
}
"""What is computed once for a row of the output, by the name of the operation."""
