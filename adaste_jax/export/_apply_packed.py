"""Networks over packed weights: each is unpacked where it is used, and no earlier."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from adaste_jax.export import _graph, _matmul, _packed

_Form = Callable[[jax.Array], jax.Array]

_BLOCK = 2**18
"""Weights of a block, about: 1 MB in float32 stays in a cache."""

_POSITIONS = 256
"""Most places of outputs, of all images, for which a convolution is a product of their
inputs, written out, with blocks of the kernel. Of more, unpacking is a small part of
the time, and the inputs written out no longer fit a cache."""


def apply_packed(forward: Callable[..., Any], *arguments: Any) -> Any:
    """`forward(*arguments)`, where packed weights stay packed.

    `forward` is written for arrays. It is traced with arrays in the place of `Packed`
    weights, and what it computes is then run with the bytes. Products and convolutions
    with large kernels (of 2^18 weights and more) read bytes: on a CPU by a table of
    sums for up to 2 rows, as `packed_matmul`, else by blocks of outputs that are
    unpacked and forgotten (a convolution with more than 256 places of outputs, in all
    images, unpacks the whole kernel); elsewhere the kernel is unpacked and left to XLA.
    All other operations get the weights unpacked, when their other operands are there:
    so XLA neither computes them while compiling nor holds those of all layers at once.

    Use it under `jax.jit`. Results differ from those of float weights by the rounding
    of sums in another order.

    Args:
        forward: A function of JAX: pure, and traceable as under `jit`.
        *arguments: Trees of arrays, with `Packed` among the leaves.

    Returns:
        What `forward` returns.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> bits = export.pack(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), axis=0)
        >>> float32 = jnp.dtype("float32")
        >>> kernel = export.Packed(bits, None, "bits", (2, 2), (0,), float32)
        >>> export.apply_packed(jnp.dot, jnp.array([1.0, 3.0]), kernel)
        Array([-2.,  2.], dtype=float32)
    """
    leaves, structure = jax.tree.flatten(arguments, is_leaf=_packed.is_packed)
    packed = [leaf for leaf in leaves if _packed.is_packed(leaf)]

    def call(weights: list[jax.Array]) -> Any:
        unused = iter(weights)
        full = [next(unused) if _packed.is_packed(x) else x for x in leaves]
        return forward(*jax.tree.unflatten(structure, full))

    struct: Any = jax.ShapeDtypeStruct
    shapes = [struct(leaf.shape, leaf.dtype) for leaf in packed]
    traced, outputs = jax.make_jaxpr(call, return_shape=True)(shapes)
    found = _run(traced.jaxpr, traced.consts, packed)
    found = [_unpacked(x, ()) if _packed.is_packed(x) else x for x in found]
    return jax.tree.unflatten(jax.tree.structure(outputs), found)


def _run(jaxpr: core.Jaxpr, consts: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, values, strict=True)

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        outputs = _equation(equation, [read(v) for v in equation.invars])
        known |= zip(equation.outvars, outputs, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _equation(equation: core.JaxprEqn, values: list[Any]) -> Sequence[Any]:
    primitive: Any = equation.primitive
    params = equation.params
    if primitive.name in _graph.CALLS:
        inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
        if isinstance(inner, core.Jaxpr):
            return _run(inner, (), values)
        return _run(inner.jaxpr, inner.consts, values)
    if _is_product(equation, values):
        return [_product(equation, *values)]
    if any(map(_packed.is_packed, values)):
        others = [x for x in values if not _packed.is_packed(x)]
        values = [_unpacked(x, others) if _packed.is_packed(x) else x for x in values]
    found = primitive.bind(*values, **params)
    outputs: Sequence[Any] = found if primitive.multiple_results else [found]
    return outputs


def _unpacked(weights: _packed.Packed, others: Sequence[Any]) -> jax.Array:
    return dataclasses.replace(weights, packed=_after(weights.packed, others)).unpack()


def _after(packed: Any, others: Sequence[Any]) -> jax.Array:
    """The bytes, which XLA takes for unknown until the other values are there."""
    barrier: Any = jax.lax.optimization_barrier
    found: jax.Array = barrier((jnp.asarray(packed), *others))[0]
    return found


def _is_product(equation: core.JaxprEqn, values: list[Any]) -> bool:
    """Whether it multiplies by a large kernel whose last axis is that of outputs.

    Of a convolution, channels come last: [..., in] and [..., in, out].
    """
    if list(map(_packed.is_packed, values)) != [False, True]:
        return False
    params, weights = equation.params, values[1]
    outputs: Any = equation.outvars[0].aval
    last = len(weights.shape) - 1
    if math.prod(weights.shape) < _packed.LARGE or weights.axes != tuple(range(last)):
        return False
    if equation.primitive.name == "dot_general":
        (_, contracted), (batch, _) = params["dimension_numbers"]
        return not batch and last not in contracted
    if equation.primitive.name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        groups = params["feature_group_count"] * params["batch_group_count"]
        outer, inner = (0, last, *range(1, last)), (last, last - 1, *range(last - 1))
        is_usual: bool = (
            groups == 1
            and 0 not in outputs.shape
            and numbers.lhs_spec == numbers.out_spec == outer
            and numbers.rhs_spec == inner
        )
        return is_usual
    return False


def _product(equation: core.JaxprEqn, x: Any, weights: _packed.Packed) -> jax.Array:
    """A product with a packed kernel, in the form that suits batch and platform."""
    rows, columns = math.prod(weights.shape[:-1]), weights.shape[-1]
    # A power of two divides most numbers of outputs, and fills the vectors of a CPU.
    width = min(columns, 2 ** max(4, round(math.log2(_BLOCK / rows))))
    outputs: Any = equation.outvars[0].aval
    scale = weights.scale if weights.group is None else None
    if scale is not None:  # it is that of outputs
        weights = dataclasses.replace(weights, scale=None)

    def multiply(x: jax.Array, weights: jax.Array) -> jax.Array:
        primitive: Any = equation.primitive
        found: jax.Array = primitive.bind(x, weights, **equation.params)
        return found

    def whole(x: jax.Array) -> jax.Array:
        return multiply(x, _unpacked(weights, [x]))

    def blocks(
        x: jax.Array, multiply: Callable[..., jax.Array] = multiply
    ) -> jax.Array:
        packed = _after(weights.packed, [x])

        def block(index: jax.Array, found: jax.Array) -> jax.Array:
            start = jnp.minimum(width * index, columns - width)  # blocks may overlap
            part = dataclasses.replace(weights, packed=packed)
            part = _packed.columns(part, start, width)
            sums = multiply(x, part.unpack())
            return jax.lax.dynamic_update_slice_in_dim(found, sums, start, axis=-1)

        zeros = jnp.zeros(outputs.shape, outputs.dtype)
        found: jax.Array = jax.lax.fori_loop(0, -(-columns // width), block, zeros)
        return found

    def convolve(x: jax.Array) -> jax.Array:
        def multiply(x: jax.Array, part: jax.Array) -> jax.Array:
            found: jax.Array = jax.lax.dot_general(
                x,
                part.reshape(rows, width),
                (((x.ndim - 1,), (0,)), ((), ())),
                precision=equation.params["precision"],
                preferred_element_type=equation.params["preferred_element_type"],
            )
            return found

        return blocks(_patches(x, weights.shape[:-2], equation.params), multiply)

    def lookup(x: jax.Array) -> jax.Array:
        found = _matmul.lookup(
            x.reshape(-1, rows),
            jnp.asarray(weights.packed),
            ternary=weights.encoding == "trits",
        )
        found = found.astype(outputs.dtype)
        return jnp.reshape(found, outputs.shape)

    def on_cpu(x: jax.Array) -> jax.Array:
        if equation.primitive.name == "conv_general_dilated":
            places = math.prod(outputs.shape[:-1])
            return _by_size(places, _POSITIONS, convolve, whole)(x)
        if not _sums_rows(equation, x, weights) or weights.group is not None:
            return blocks(x)
        return _by_size(x.size // rows, _matmul.LOOKUP_ROWS, lookup, blocks)(x)

    found: jax.Array = jax.lax.platform_dependent(x, cpu=on_cpu, default=whole)
    if scale is None:
        return found
    factors = jnp.asarray(scale, outputs.dtype)
    factors = factors.reshape(*[1] * (found.ndim - factors.ndim), *factors.shape)
    return found * factors


def _by_size(size: Any, most: int, few: _Form, many: _Form) -> _Form:
    """One function up to a size, which may depend on a batch not known yet."""
    if isinstance(size, int):
        return few if size <= most else many
    return lambda x: jax.lax.cond(jnp.asarray(size) <= most, few, many, x)


def _patches(x: jax.Array, window: Sequence[int], params: dict[str, Any]) -> jax.Array:
    """The inputs of each place of a convolution's outputs, in the order of a kernel.

    Args:
        x: Inputs [batch, ..., in].
        window: Spatial shape of the kernel.
        params: Parameters of `conv_general_dilated`.

    Returns:
        [batch, ..., window and in], with the spatial shape of the outputs.
    """
    edges = zip(params["padding"], params["lhs_dilation"], strict=True)
    between = [(low, high, step - 1) for (low, high), step in edges]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *between, (0, 0, 0)])
    taps, strides = (1, *window, 1), (1, *params["window_strides"], 1)
    steps, axes = (1, *params["rhs_dilation"], 1), range(x.ndim)
    parts = []
    for tap in itertools.product(*map(range, taps)):
        starts = [steps[i] * tap[i] for i in axes]
        ends = [x.shape[i] - steps[i] * (taps[i] - 1 - tap[i]) for i in axes]
        parts.append(jax.lax.slice(x, starts, ends, strides))
    return jnp.concatenate(parts, axis=-1)


def _sums_rows(equation: core.JaxprEqn, x: Any, weights: _packed.Packed) -> bool:
    """Whether the last axes of `x` are multiplied by all but the last of the kernel."""
    summed = len(weights.shape) - 1
    axes = tuple(range(x.ndim - summed, x.ndim)), tuple(range(summed))
    is_all: bool = equation.params["dimension_numbers"][0] == axes
    return is_all
