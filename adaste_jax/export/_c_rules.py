"""One rule for each operation of a graph: how one of its numbers is computed in C.

A rule takes the writer, the node and the index of the number, as expressions of C. It
may write statements, and returns an expression. What it reads by index is in memory or
a constant, except for operations of each number.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from adaste_jax.export import _c_memory, _c_text, _c_weights, _graph_ops
from adaste_jax.export._c_nodes import Index, RowRule, Rule, Writer
from adaste_jax.export._c_text import total
from adaste_jax.export._graph_ops import Graph, Node

_FLOATS = {
    "abs": "{0} < 0 ? -{0} : {0}",
    "ceil": "-round_down(-{0})",
    "exp": "exponential({0})",
    "floor": "round_down({0})",
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
    "add": "(int32_t)((uint32_t){0} + (uint32_t){1})",
    "max": "{0} < {1} ? {1} : {0}",
    "min": "{0} > {1} ? {1} : {0}",
    "mul": "(int32_t)((uint32_t){0} * (uint32_t){1})",
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
_LOWEST = {"float": "-1.0f / 0.0f", "int32_t": "-2147483647 - 1", "uint8_t": "0"}
_HIGHEST = {"float": "1.0f / 0.0f", "int32_t": "2147483647", "uint8_t": "1"}
_BETTER = {"max": "{0} > {1} || {0} != {0}", "min": "{0} < {1} || {0} != {0}"}
_BETTER_INTEGER = {"max": "{0} > {1}", "min": "{0} < {1}"}


def why_not(graph: Graph, node: Node) -> str | None:
    """Why an operation cannot be written in C; None where it can."""
    if node.op not in RULES and node.op != "reshape":
        return "it is not known"
    if 0 in _c_memory.shapes(graph)[node.output]:
        return "it has no numbers"
    kind = _c_memory.dtype_of(graph, node.inputs[0])
    table = _FLOATS if kind.kind == "f" else _INTEGERS
    if node.op in _graph_ops.ELEMENTWISE and node.op not in {
        **table,
        **_BOTH,
        "cast": "",
    }:
        what = "libm" if kind.kind == "f" else "whole numbers to divide"
        return f"it needs {what}, which the C sources do without"
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
    for function in _c_text.FUNCTIONS:
        if f"{function}(" in form:
            writer.call(function)
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
        inside += [f"{moved[-1]} >= 0"] * (low > 0)
        inside += [f"{moved[-1]} < {size}"] * (high > 0)
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
    start = {"sum": "0", "max": _LOWEST[kind], "min": _HIGHEST[kind]}[op]
    found = writer.keep(start, kind, const=False)
    shape = writer.shape[name]
    with writer.loops([shape[axis] for axis in axes], "k") as inner:
        along = dict(zip(axes, inner, strict=True))
        whole = [along[i] if i in along else next(left) for i in range(len(shape))]
        _gather(writer, op, found, writer.at(name, whole), kind)
    return found


def _gather(writer: Writer, op: str, found: str, value: str, kind: str) -> None:
    """Takes one number more into a sum, a maximum or a minimum."""
    if op == "sum":
        added = _INTEGERS["add"].format(found, f"({value})")
        writer.say(f"{found} {f'= {added}' if kind == 'int32_t' else f'+= {value}'};")
        return
    value = writer.keep(value, kind)
    better = (_BETTER if kind == "float" else _BETTER_INTEGER)[op]
    with writer.block(f"if ({better.format(value, found)})"):
        writer.say(f"{found} = {value};")


def _arg(writer: Writer, node: Node, index: Index) -> str:
    (name,), axis = node.inputs, node.attributes["axis"]
    kind, op = writer.kind(name), node.op.removeprefix("arg")
    best = writer.keep("0", "int32_t", const=False)
    better = (_BETTER if kind == "float" else _BETTER_INTEGER)[op]
    with writer.loops([writer.shape[name][axis]], "k") as (k,):
        pair = [[*index[:axis], one, *index[axis:]] for one in (k, best)]
        new, old = (writer.keep(writer.at(name, i), kind) for i in pair)
        with writer.block(f"if (({better.format(new, old)}) && {old} == {old})"):
            writer.say(f"{best} = {k};")
    return best


def _matmul(writer: Writer, node: Node, index: Index) -> str:
    x, y = node.inputs
    rank_x, rank_y = len(writer.shape[x]), len(writer.shape[y])
    *lead, output = index
    row = [lead.pop()] if rank_x > 1 else []

    def batch(name: str, rank: int) -> list[str]:
        shape = writer.shape[name][: max(rank - 2, 0)]
        last = lead[len(lead) - len(shape) :]
        return [i if n > 1 else "0" for i, n in zip(last, shape, strict=True)]

    here = [*batch(x, rank_x), *row]
    return _product(writer, node, "", here, "0", batch(y, rank_y), output)


def _conv(writer: Writer, node: Node, index: Index) -> str:
    kernel, given = node.inputs[1], node.attributes
    *window, inner, outputs = writer.shape[kernel]
    start = "0"
    if given["groups"] > 1:
        start = total((f"{index[-1]} / {outputs // given['groups']}", inner))
    found = writer.keep("0", writer.kind(node.output), const=False)
    with _window(writer, node, window, index, given["dilation"]) as (taps, here):
        _product(writer, node, found, [index[0], *here], start, taps, index[-1])
    return found


def _product(
    writer: Writer,
    node: Node,
    found: str,
    here: Index,
    start: str,
    taps: Index,
    output: str,
) -> str:
    """The sum over channels of inputs times weights, added to `found` if there is one.

    Args:
        writer: The writer.
        node: A product or convolution.
        found: The sum so far; "" for none.
        here: The index of the inputs, without the channel.
        start: Their first channel.
        taps: The index of the weights, without channel and output.
        output: The index of the output.
    """
    (x, name), kind = node.inputs, writer.kind(node.output)
    *window, inner, outputs = writer.shape[name]
    packed = writer.packed.get(name)
    if packed is None:
        found = found or writer.keep("0", kind, const=False)
        with writer.loops([inner], "k") as (k,):
            pair = (
                writer.at(x, [*here, total((start, 1), (k, 1))]),
                writer.at(name, [*taps, k, output]),
            )
            times = (_INTEGERS if kind == "int32_t" else _FLOATS)["mul"].format(*pair)
            _gather(writer, "sum", found, times, kind)
        return found
    words = writer.table(f"{name}.packed", packed.words)
    length = packed.group[-2] if packed.group else inner
    if packed.group and not found:
        found = writer.keep("0", kind, const=False)
    with writer.loops([inner // length], "k") as (k,):
        places, sizes = [output, *taps, k], [outputs, *window, inner // length]
        strides = [length * int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))]
        value = writer.call(
            f"signed_sum_{packed.bits}",
            writer.pointer(x, [*here, total((start, 1), (k, length))]),
            words,
            total(*zip(places, strides, strict=True)),
            str(length),
        )
        if packed.scale is not None:
            blocks = [*packed.group[:-2], 1, packed.group[-1]]
            group = [
                i if by == 1 or i == "0" else f"{i} / {by}"
                for i, by in zip([*taps, k, output], blocks, strict=True)
            ]
            counts = packed.scale.shape
            strides = [int(np.prod(counts[i + 1 :])) for i in range(len(counts))]
            scales = writer.table(f"{name}.scales", packed.scale)
            value = f"{scales}[{total(*zip(group, strides, strict=True))}] * {value}"
        if not found:
            return writer.keep(value, kind)
        writer.say(f"{found} += {value};")
    return found


@contextlib.contextmanager
def _window(
    writer: Writer,
    node: Node,
    window: Sequence[int],
    index: Index,
    dilation: Sequence[int] | None = None,
) -> Iterator[tuple[list[str], list[str]]]:
    """Statements for each place of a window that lies in the image.

    Args:
        writer: The writer.
        node: A convolution or a pool.
        window: Its sizes.
        index: Of the output, with batch and channel.
        dilation: How far places are apart.

    Yields:
        The index in the window, and that in the image, without batch and channel.
    """
    given, inside, here = node.attributes, [], []
    with writer.loops(window, "k") as taps:
        for axis, tap in enumerate(taps):
            apart = dilation[axis] if dilation else 1
            stride, (low, _) = given["strides"][axis], given["padding"][axis]
            size = writer.shape[node.inputs[0]][axis + 1]
            place = total((index[axis + 1], stride), (tap, apart), (str(-low), 1))
            steps = writer.shape[node.output][axis + 1] - 1
            ends = ["{} >= 0"] * (low > 0)
            if steps * stride + (window[axis] - 1) * apart - low >= size:
                ends.append(f"{{}} < {size}")
            if ends:
                place = writer.keep(place, "int32_t")
            inside += [end.format(place) for end in ends]
            here.append(place)
        condition = f"if ({' && '.join(inside)})" if inside else ""
        with writer.block(condition):
            yield taps, here


def _pool(writer: Writer, node: Node, index: Index) -> str:
    (name,), kind = node.inputs, writer.kind(node.output)
    op = node.op.removesuffix("_pool")
    start = _LOWEST[kind] if op == "max" else "0"
    found = writer.keep(start, kind, const=False)
    with _window(writer, node, node.attributes["window"], index) as (_, here):
        value = writer.at(name, [index[0], *here, index[-1]])
        _gather(writer, op, found, value, kind)
    return found


def _sum_of_row(writer: Writer, node: Node, outer: Index, form: str) -> str:
    """The sum over a row of what `form` makes of its numbers."""
    found = writer.keep("0", "float", const=False)
    with writer.loops([writer.shape[node.output][-1]], "k") as (k,):
        x = writer.keep(writer.at(node.inputs[0], [*outer, k]), "float")
        writer.say(f"{found} += {form.format(x)};")
    return found


def _softmax_row(writer: Writer, node: Node, outer: Index) -> tuple[str, str]:
    top = writer.keep(_LOWEST["float"], "float", const=False)
    with writer.loops([writer.shape[node.output][-1]], "k") as (k,):
        _gather(writer, "max", top, writer.at(node.inputs[0], [*outer, k]), "float")
    power = writer.call("exponential", f"{{}} - {top}")
    return top, _sum_of_row(writer, node, outer, power)


def _softmax(writer: Writer, node: Node, index: Index) -> str:
    top, whole = writer.rows[node.output]
    power = writer.call("exponential", f"{writer.at(node.inputs[0], index)} - {top}")
    return writer.keep(f"{power} / {whole}", "float")


def _layer_norm_row(writer: Writer, node: Node, outer: Index) -> tuple[str, str]:
    count = f"{writer.shape[node.output][-1]}.0f"
    mean = writer.keep(f"{_sum_of_row(writer, node, outer, '{0}')} / {count}", "float")
    apart = f"({{0}} - {mean}) * ({{0}} - {mean})"
    squares = _sum_of_row(writer, node, outer, apart)
    epsilon = _c_weights.literal(np.float32(node.attributes["epsilon"]))
    spread = writer.call("root", f"{squares} / {count} + {epsilon}")
    return mean, writer.keep(f"1 / {spread}", "float")


def _layer_norm(writer: Writer, node: Node, index: Index) -> str:
    mean, inverse = writer.rows[node.output]
    x, scale = writer.at(node.inputs[0], index), writer.at(node.inputs[1], index[-1:])
    return writer.keep(f"({x} - {mean}) * {inverse} * {scale}", "float")


RULES: dict[str, Rule] = {
    **dict.fromkeys(_graph_ops.ELEMENTWISE, _elementwise),
    "argmax": _arg,
    "argmin": _arg,
    "concatenate": _concatenate,
    "conv": _conv,
    "expand": _expand,
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "max_pool": _pool,
    "pad": _pad,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_sum": _reduce,
    "slice": _slice,
    "softmax": _softmax,
    "sum_pool": _pool,
    "take": _take,
    "transpose": _transpose,
}
"""By the name of the operation; a reshape does nothing."""

ROWS: dict[str, RowRule] = {"layer_norm": _layer_norm_row, "softmax": _softmax_row}
"""What is computed once for a row of the output, by the name of the operation."""
