"""One rule for each primitive of JAX: how it is written in the operations of a graph.

A rule takes the builder, the equation and its inputs, and returns its output, or a list
of outputs. It raises `NotImplementedError` for a form that it does not cover.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adaste_jax.export import _graph_gather, _graph_layers, _graph_ops
from adaste_jax.export._graph_build import Builder, Value

Rule = Callable[..., Value | Sequence[Value]]


def _same(op: str) -> Rule:
    return lambda build, _, *values: build.elementwise(op, *values)


def _of(formula: Callable[..., Value]) -> Rule:
    """A rule from `formula(f, *values)`, where `f(op, *values)` is `elementwise`."""

    def rule(build: Builder, _: Any, *values: Value) -> Value:
        def f(op: str, *inputs: Any) -> Value:
            given = [
                v
                if isinstance(v, Value)
                else build.constant(np.asarray(v, values[0].dtype))
                for v in inputs
            ]
            return build.elementwise(op, *given)

        return formula(f, *values)

    return rule


def _logical(op: str) -> Rule:
    def rule(build: Builder, _: Any, *values: Value) -> Value:
        if values[0].dtype != np.bool_:
            raise NotImplementedError("of integers it is not known")
        return build.elementwise(op, *values)

    return rule


def _less(build: Builder, equation: Any, x: Value, y: Value) -> Value:
    unsigned = np.issubdtype(equation.invars[0].aval.dtype, np.unsignedinteger)
    if unsigned and y.known and not np.any(y.source):
        false = np.zeros([1] * len(x.shape), np.bool_)
        return Value(false, x.shape, false.shape, false.dtype)
    return build.elementwise("lt", x, y)


def _select(build: Builder, _: Any, which: Value, *cases: Value) -> Value:
    if len(cases) != 2 or which.dtype != np.bool_:
        raise NotImplementedError("of more than two cases it is not known")
    no, yes = cases
    if which.known and which.array.size and which.array.min() == which.array.max():
        return yes if which.array.flat[0] else no
    return build.elementwise("where", which, yes, no)


def _integer_pow(build: Builder, equation: Any, x: Value) -> Value:
    y = equation.params["y"]
    power = x
    if y in (2, 3):
        for _ in range(y - 1):
            power = build.elementwise("mul", power, x)
        return power
    exponent = build.constant(np.asarray(y, x.dtype))
    return build.elementwise("pow", x, exponent)


def _round(build: Builder, equation: Any, x: Value) -> Value:
    if int(equation.params["rounding_method"]) != 1:
        raise NotImplementedError("it rounds halves away from zero; jnp.round does not")
    return build.elementwise("round", x)


def _cast(build: Builder, equation: Any, x: Value) -> Value:
    wanted = np.dtype(equation.params["new_dtype"])
    dtype = _graph_ops.widened(wanted)
    if wanted.kind in "iu" and wanted.itemsize < 4 and x.dtype != np.bool_:
        raise NotImplementedError(f"it narrows to {wanted}, where numbers wrap")
    if dtype == x.dtype:
        return x
    return build.elementwise("cast", x, dtype=dtype)


def _broadcast(build: Builder, equation: Any, x: Value, *_: Any) -> Value:
    shape = tuple(equation.outvars[0].aval.shape)
    have: list[Any] = [1] * len(shape)
    for axis, size in zip(equation.params["broadcast_dimensions"], x.have, strict=True):
        have[axis] = size
    return build.spread(x, shape, tuple(have))


def _reshape(build: Builder, equation: Any, x: Value, *_: Any) -> Value:
    return build.reshape(x, equation.outvars[0].aval.shape)


def _transpose(build: Builder, equation: Any, x: Value) -> Value:
    return build.transpose(x, equation.params["permutation"])


def _iota(build: Builder, equation: Any, *_: Any) -> Value:
    params = equation.params
    shape, axis = params["shape"], params["dimension"]
    if not isinstance(shape[axis], int):
        raise NotImplementedError("it counts along the batch")
    have = [1] * len(shape)
    have[axis] = shape[axis]
    counted = build.constant(np.arange(shape[axis]).astype(params["dtype"]))
    return counted._replace(
        source=counted.array.reshape(have), shape=tuple(shape), have=tuple(have)
    )


def _slice(build: Builder, equation: Any, x: Value) -> Value:
    params = equation.params
    strides = params["strides"] or [1] * len(x.shape)
    return build.cut(
        x, params["start_indices"], equation.outvars[0].aval.shape, strides
    )


def _dynamic_slice(build: Builder, equation: Any, x: Value, *starts: Value) -> Value:
    if not all(start.known for start in starts):
        raise NotImplementedError("where it cuts depends on the input")
    sizes = equation.params["slice_sizes"]
    at = [
        min(max(int(start.source), 0), whole - size) if isinstance(whole, int) else 0
        for start, size, whole in zip(starts, sizes, x.shape, strict=True)
    ]
    return build.cut(x, at, sizes, [1] * len(at))


def _split(build: Builder, equation: Any, x: Value) -> list[Value]:
    axis, parts, start = equation.params["axis"], [], 0
    for size in map(int, equation.params["sizes"]):
        starts = [start if i == axis else 0 for i in range(len(x.shape))]
        sizes = [size if i == axis else d for i, d in enumerate(x.shape)]
        parts.append(build.cut(x, starts, sizes, [1] * len(starts)))
        start += size
    return parts


def _reverse(build: Builder, equation: Any, x: Value) -> Value:
    x = build.full(x)
    for axis in equation.params["dimensions"]:
        if not isinstance(x.shape[axis], int):
            raise NotImplementedError("it turns the batch around")
        indices = build.constant(np.arange(x.shape[axis])[::-1])
        x = build.emit("take", [x, indices], x.shape, axis=int(axis))
    return x


def _pad(build: Builder, equation: Any, x: Value, value: Value) -> Value:
    low, high, interior = zip(*equation.params["padding_config"], strict=True)
    if any(interior) or min(*low, *high) < 0 or not value.known:
        raise NotImplementedError("it pads between numbers, or by less than nothing")
    return build.emit(
        "pad",
        [build.full(x)],
        equation.outvars[0].aval.shape,
        low=low,
        high=high,
        value=value.array.item(),
    )


def _concatenate(build: Builder, equation: Any, *values: Value) -> Value:
    return build.join(values, equation.params["dimension"])


def _stack(build: Builder, equation: Any, *values: Value) -> Value:
    axis = equation.params["axis"]
    parts = [build.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in values]
    return build.join(parts, axis)


def _reduce(op: str) -> Rule:
    def rule(build: Builder, equation: Any, x: Value) -> Value:
        axes = tuple(equation.params["axes"])
        x = build.full(x, axes)
        shape, have = (
            tuple(d for i, d in enumerate(sizes) if i not in axes)
            for sizes in (x.shape, x.have)
        )
        if op.startswith("arg"):
            return build.emit(op, [x], shape, have=have, axis=axes[0])
        return build.emit(op, [x], shape, have=have, axes=axes)

    return rule


def _batch_size(*_: Any) -> Value:
    raise NotImplementedError("it computes with the size of the batch")


def _first(build: Builder, _: Any, *values: Value) -> list[Value]:
    return list(values)


_ELEMENTWISE = (
    *("abs", "ceil", "cos", "erf", "exp", "floor", "log", "logistic", "neg", "sign"),
    *("sin", "sqrt", "tanh", "add", "div", "eq", "ge", "gt", "le", "max", "min", "mul"),
    *("ne", "pow", "rem", "sub"),
)
"""Primitives that are an operation of the same name."""

RULES: dict[str, Rule] = {
    **{op: _same(op) for op in _ELEMENTWISE},
    **{op: _logical(op) for op in ("and", "or", "not")},
    **{op: _reduce(op) for op in ("reduce_sum", "reduce_max", "reduce_min")},
    **{op: _reduce(op) for op in ("argmax", "argmin")},
    **dict.fromkeys(
        (
            "copy",
            "copy_p",
            "optimization_barrier",
            "reduce_precision",
            "sharding_constraint",
            "stop_gradient",
        ),
        _first,
    ),
    "broadcast_in_dim": _broadcast,
    "clamp": _of(lambda f, low, x, high: f("min", f("max", x, low), high)),
    "concatenate": _concatenate,
    "conv_general_dilated": _graph_layers.conv,
    "convert_element_type": _cast,
    "dim_as_value": _batch_size,
    "dot_general": _graph_layers.dot,
    "dynamic_slice": _dynamic_slice,
    "erfc": _of(lambda f, x: f("sub", 1, f("erf", x))),
    "exp2": _of(lambda f, x: f("exp", f("mul", x, np.log(2)))),
    "expm1": _of(lambda f, x: f("sub", f("exp", x), 1)),
    "gather": _graph_gather.gather,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "log1p": _of(lambda f, x: f("log", f("add", x, 1))),
    "lt": _less,
    "pad": _pad,
    "reduce_window_max": _graph_layers.pool("max_pool"),
    "reduce_window_sum": _graph_layers.pool("sum_pool"),
    "reshape": _reshape,
    "rev": _reverse,
    "round": _round,
    "rsqrt": _of(lambda f, x: f("div", 1, f("sqrt", x))),
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _of(lambda f, x: f("mul", x, x)),
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
}
"""By the name of the primitive."""
