"""Numbers in a C header: packed weights and constants."""

import re
from typing import NamedTuple

import numpy as np

from adaste_jax.export import _graph_passes, _scales
from adaste_jax.export._graph_ops import Graph, Node, Spec

TYPES = {"float32": "float", "int32": "int32_t", "bool": "uint8_t"}
"""The types of C of the numbers in a graph."""

INPUTS = {
    **{
        f"{sign}int{n}": f"{sign}int{n}_t"
        for sign in ("", "u")
        for n in (8, 16, 32, 64)
    },
    **TYPES,
    "float64": "double",
}
"""Those of its input too."""


class Packed(NamedTuple):
    """Weights [..., in, out] as words; the inputs of an output lie one after another.

    Number i of the words is in bits `bits` * i and the next, from the lowest. One bit:
    1 is the upper level. Two bits: 0, 1, 2 are -1, 0, 1.
    """

    words: np.ndarray  # uint32
    bits: int  # of a weight: 1 or 2
    scale: np.ndarray | None  # the number of groups along each axis; None is 1
    group: tuple[int, ...]  # how long one is along each axis


def pack(array: np.ndarray) -> Packed | None:
    """The array [..., in, out] without its scale; None if it is on many levels."""
    if array.dtype != np.float32 or array.ndim < 2 or not array.size:
        return None
    found = _scales.levels(array)
    if found is None:
        return None
    encoding, scale, group = found
    bits = {"bits": 1, "trits": 2}[encoding]
    words = _scales.words(np.moveaxis(array, -1, 0), bits, np.uint32)
    return Packed(words, bits, None if group is None else scale, group or ())


def lift_scales(graph: Graph) -> tuple[Graph, dict[str, Packed]]:
    """The graph with the scales of its weights after the products, and the weights.

    A scale of a tensor or of an output is one with the norm that follows, so that it
    takes neither memory nor time.

    Args:
        graph: A graph.

    Returns:
        A graph that computes the same with signs for weights, and these by the name of
        their constant.
    """
    packed: dict[str, Packed] = {}
    nodes: list[Node] = []
    constants, specs = dict(graph.constants), dict(graph.specs)
    for node in graph.nodes:
        name = node.inputs[-1]
        weights = constants.get(name) if node.op in ("conv", "matmul") else None
        if weights is not None and (node.op == "conv" or weights.ndim == 2):
            found = packed.get(name) or pack(weights)
        else:
            found = None
        if weights is None or found is None:
            nodes.append(node)
            continue
        packed[name] = found
        scale = np.abs(weights).max(tuple(range(weights.ndim - 1)))
        if found.scale is not None or (scale == 1).all():
            nodes.append(node)
            continue
        bare, factor = f"{node.output}.signs", f"{name}.scale"
        same = (scale == scale[0]).all()
        constants[factor] = np.asarray(scale[0] if same else scale)
        specs[bare] = Spec(*specs[node.output])
        nodes.append(node._replace(output=bare))
        nodes.append(Node("mul", (bare, factor), node.output, {}, node.where))
    lifted = graph._replace(nodes=nodes, constants=constants, specs=specs)
    return _graph_passes.fold_affine(lifted), packed


def magnitudes(graph: Graph) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and number of magnitudes of the arrays that inputs are multiplied by."""
    names = [node.inputs[-1] for node in graph.nodes if node.op in ("matmul", "conv")]
    arrays = {name: graph.constants[name] for name in names if name in graph.constants}
    return {k: (a.shape, len(np.unique(np.abs(a)))) for k, a in arrays.items()}


def plain(text: str) -> str:
    """A text for a comment, in which it can end nothing."""
    return re.sub(r"[^0-9A-Za-z_./ -]+|/(?=[*/])", "_", text)[:70]


def identifier(name: str, taken: set[str]) -> str:
    """A name for C that is like `name`, and new."""
    stem = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").removeprefix("c_")
    stem = f"c_{stem[-40:] or 'x'}"
    found, number = stem, 1
    while found in taken:
        found, number = f"{stem}_{number}", number + 1
    taken.add(found)
    return found


def literal(number: np.generic) -> str:
    """A number as C writes it, without loss."""
    if isinstance(number, np.floating):
        if not np.isfinite(number):
            sign = "-" if number < 0 else ""
            return f"({sign}{int(number == number)}.0f / 0.0f)"
        return f"{np.float32(number)!s}f"
    if number == np.iinfo(np.int32).min:
        return "(-2147483647 - 1)"
    return str(int(number))


def table(name: str, array: np.ndarray) -> str:
    """The definition of an array."""
    if array.dtype == np.uint32:
        kind, numbers = "uint32_t", [f"{n:#x}" for n in array.tolist()]
    else:
        kind, numbers = TYPES[array.dtype.name], list(map(literal, array.reshape(-1)))
    lines: list[str] = []
    line = ""
    for number in numbers:
        if len(line) + len(number) > 84:
            lines, line = [*lines, line], ""
        line += f" {number},"
    body = "\n".join(f"   {one}" for one in [*lines, line])
    return f"static const {kind} {name}[{array.size}] = {{\n{body}\n}};\n"
