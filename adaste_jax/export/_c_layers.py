"""The rules of products, convolutions, pools, softmax and layer norm, in C."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from adaste_jax.export import _c_weights
from adaste_jax.export._c_nodes import Index, Writer
from adaste_jax.export._c_text import total
from adaste_jax.export._graph_ops import Node

SUM = "(int32_t)((uint32_t){0} + (uint32_t){1})"
PRODUCT = "(int32_t)((uint32_t){0} * (uint32_t){1})"
"""Of integers, which wrap."""

LOWEST = {"float": "-1.0f / 0.0f", "int32_t": "-2147483647 - 1", "uint8_t": "0"}
HIGHEST = {"float": "1.0f / 0.0f", "int32_t": "2147483647", "uint8_t": "1"}
"""Where a maximum and a minimum begin, by type."""


def better(op: str, kind: str) -> str:
    """Whether a number is to replace another in a maximum or minimum, as NaN does."""
    found = f"{{0}} {'>' if op == 'max' else '<'} {{1}}"
    return f"{found} || {{0}} != {{0}}" if kind == "float" else found


def accumulate(writer: Writer, op: str, found: str, value: str, kind: str) -> None:
    """Takes one number more into a sum, a maximum or a minimum."""
    if op == "sum":
        added = SUM.format(found, f"({value})")
        writer.say(f"{found} {f'= {added}' if kind == 'int32_t' else f'+= {value}'};")
        return
    value = writer.keep(value, kind)
    with writer.block(f"if ({better(op, kind).format(value, found)})"):
        writer.say(f"{found} = {value};")


def matmul(writer: Writer, node: Node, index: Index) -> str:
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


def conv(writer: Writer, node: Node, index: Index) -> str:
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
            times = PRODUCT if kind == "int32_t" else "{0} * {1}"
            accumulate(writer, "sum", found, times.format(*pair), kind)
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
            ends = ["{} >= 0"] * bool(low > 0)
            if steps * stride + (window[axis] - 1) * apart - low >= size:
                ends.append(f"{{}} < {size}")
            if ends:
                place = writer.keep(place, "int32_t")
            inside += [end.format(place) for end in ends]
            here.append(place)
        condition = f"if ({' && '.join(inside)})" if inside else ""
        with writer.block(condition):
            yield taps, here


def pool(writer: Writer, node: Node, index: Index) -> str:
    (name,), kind = node.inputs, writer.kind(node.output)
    op = node.op.removesuffix("_pool")
    start = LOWEST[kind] if op == "max" else "0"
    found = writer.keep(start, kind, const=False)
    with _window(writer, node, node.attributes["window"], index) as (_, here):
        value = writer.at(name, [index[0], *here, index[-1]])
        accumulate(writer, op, found, value, kind)
    return found


def _sum_of_row(writer: Writer, node: Node, outer: Index, form: str) -> str:
    """The sum over a row of what `form` makes of its numbers."""
    found = writer.keep("0", "float", const=False)
    with writer.loops([writer.shape[node.output][-1]], "k") as (k,):
        x = writer.keep(writer.at(node.inputs[0], [*outer, k]), "float")
        writer.say(f"{found} += {form.format(x)};")
    return found


def softmax_row(writer: Writer, node: Node, outer: Index) -> tuple[str, str]:
    top = writer.keep(LOWEST["float"], "float", const=False)
    with writer.loops([writer.shape[node.output][-1]], "k") as (k,):
        accumulate(writer, "max", top, writer.at(node.inputs[0], [*outer, k]), "float")
    power = writer.call("exponential", f"{{}} - {top}")
    return top, _sum_of_row(writer, node, outer, power)


def softmax(writer: Writer, node: Node, index: Index) -> str:
    top, whole = writer.rows[node.output]
    power = writer.call("exponential", f"{writer.at(node.inputs[0], index)} - {top}")
    return writer.keep(f"{power} / {whole}", "float")


def layer_norm_row(writer: Writer, node: Node, outer: Index) -> tuple[str, str]:
    count = f"{writer.shape[node.output][-1]}.0f"
    mean = writer.keep(f"{_sum_of_row(writer, node, outer, '{0}')} / {count}", "float")
    apart = f"({{0}} - {mean}) * ({{0}} - {mean})"
    squares = _sum_of_row(writer, node, outer, apart)
    epsilon = _c_weights.literal(np.float32(node.attributes["epsilon"]))
    spread = writer.call("root", f"{squares} / {count} + {epsilon}")
    return mean, writer.keep(f"1 / {spread}", "float")


def layer_norm(writer: Writer, node: Node, index: Index) -> str:
    mean, inverse = writer.rows[node.output]
    x, scale = writer.at(node.inputs[0], index), writer.at(node.inputs[1], index[-1:])
    return writer.keep(f"({x} - {mean}) * {inverse} * {scale}", "float")
