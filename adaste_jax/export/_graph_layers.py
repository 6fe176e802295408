"""The rules of products, convolutions and pools."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adaste_jax.export._graph_build import Builder, Value


def dot(build: Builder, equation: Any, x: Value, y: Value) -> Value:
    (sum_x, sum_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    x, y = build.full(x), build.full(y)
    out = tuple(equation.outvars[0].aval.shape)
    free_x = [i for i in range(len(x.shape)) if i not in (*sum_x, *batch_x)]
    free_y = [i for i in range(len(y.shape)) if i not in (*sum_y, *batch_y)]
    if not batch_x and x.known and not y.known:  # the weights come second
        swapped = _product(build, y, x, (free_y, sum_y), (free_x, sum_x), ())
        count = len(free_y)
        order = [*range(count, len(out)), *range(count)]
        return build.transpose(swapped, order)
    x = build.transpose(x, [*batch_x, *free_x, *sum_x])
    y = build.transpose(y, [*batch_y, *free_y, *sum_y])
    count = len(batch_x)

    def shifted(free: Sequence[int], ended: int) -> tuple[list[int], list[int]]:
        middle = count + len(free)
        return list(range(count, middle)), list(range(middle, ended))

    return _product(
        build,
        x,
        y,
        shifted(free_x, len(x.shape)),
        shifted(free_y, len(y.shape)),
        x.shape[:count],
    )


def _product(
    build: Builder,
    x: Value,
    y: Value,
    axes_x: tuple[Sequence[int], Sequence[int]],
    axes_y: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Any, ...],
) -> Value:
    """[batch, free of x, free of y]; `axes` are the free and the summed axes."""
    count = len(batch)
    lead = list(range(count))
    free_x = tuple(x.shape[i] for i in axes_x[0])
    free_y = tuple(y.shape[i] for i in axes_y[0])
    inner = math.prod(x.shape[i] for i in axes_x[1])
    rows = (math.prod(free_x),) if count or not free_x else free_x
    columns = math.prod(free_y)
    x = build.transpose(x, [*lead, *axes_x[0], *axes_x[1]])
    y = build.transpose(y, [*lead, *axes_y[1], *axes_y[0]])
    x = build.reshape(x, (*batch, *rows, inner))
    y = build.reshape(y, (*batch, inner, columns))
    product = build.emit("matmul", [x, y], (*batch, *rows, columns))
    return build.reshape(product, (*batch, *free_x, *free_y))


def conv(build: Builder, equation: Any, x: Value, kernel: Value) -> Value:
    params = equation.params
    numbers = params["dimension_numbers"]
    batch, channel, *spatial = numbers.lhs_spec
    features, within, *sides = numbers.rhs_spec
    padding = tuple((int(low), int(high)) for low, high in params["padding"])
    if any(d != 1 for d in params["lhs_dilation"]):
        raise NotImplementedError("of a dilated input (a transposed convolution)")
    if params["batch_group_count"] != 1 or min(map(min, padding), default=0) < 0:
        raise NotImplementedError("with groups in the batch, or with less than nothing")
    x = build.transpose(build.full(x), [batch, *spatial, channel])
    kernel = build.transpose(build.full(kernel), [*sides, within, features])
    out_batch, out_channel, *out_spatial = numbers.out_spec
    out = equation.outvars[0].aval.shape
    order = [out_batch, *out_spatial, out_channel]
    found = build.emit(
        "conv",
        [x, kernel],
        tuple(out[i] for i in order),
        strides=tuple(params["window_strides"]),
        padding=padding,
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
    )
    return build.transpose(found, np.argsort(order).tolist())


def pool(op: str) -> Callable[..., Value]:
    def rule(build: Builder, equation: Any, x: Value) -> Value:
        params = equation.params
        window, strides = params["window_dimensions"], params["window_strides"]
        padding = [tuple(map(int, pair)) for pair in params["padding"]]
        dilations = [*params["base_dilation"], *params["window_dilation"]]
        if set(dilations) != {1} or len(window) < 3:
            raise NotImplementedError("with dilation, or of less than three axes")
        ends = [(window[i], strides[i], padding[i]) for i in (0, -1)]
        if ends != [(1, 1, (0, 0))] * 2:
            raise NotImplementedError("over the batch or the channels (the last axis)")
        x = build.full(x, range(1, len(window) - 1))
        shape = tuple(equation.outvars[0].aval.shape)
        return build.emit(
            op,
            [x],
            shape,
            have=(x.have[0], *shape[1:-1], x.have[-1]),
            window=tuple(window[1:-1]),
            strides=tuple(strides[1:-1]),
            padding=tuple(padding[1:-1]),
        )

    return rule
