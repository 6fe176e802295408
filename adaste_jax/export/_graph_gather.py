"""The rule of `gather`, which JAX makes of every kind of indexing."""

from typing import Any

import numpy as np

from adaste_jax.export._graph_build import Builder, Value


def gather(build: Builder, equation: Any, x: Value, indices: Value) -> Value:
    """Rows by indices, as in an embedding; or parts at known places, as `x[:, ::2]`."""
    numbers = equation.params["dimension_numbers"]
    if numbers.operand_batching_dims:
        raise NotImplementedError("with indices of their own for each example")
    if indices.known:
        return _known(build, equation, x, build.full(indices).array)
    axes, sizes = numbers.start_index_map, equation.params["slice_sizes"]
    out = tuple(equation.outvars[0].aval.shape)
    if len(axes) != 1 or numbers.collapsed_slice_dims != tuple(axes):
        raise NotImplementedError("with several indices, or of more than one row each")
    (axis,) = axes
    if any(
        s != d for i, (s, d) in enumerate(zip(sizes, x.shape, strict=True)) if i != axis
    ):
        raise NotImplementedError("of a part of a row")
    indices = build.full(indices)
    indices = build.reshape(indices, indices.shape[:-1])
    return _taken(build, x, indices, axis, out, numbers.offset_dims)


def _taken(
    build: Builder,
    x: Value,
    indices: Value,
    axis: int,
    out: tuple[Any, ...],
    offsets: tuple[int, ...],
) -> Value:
    """`take`, with its axes where `gather` puts them."""
    x = build.full(x)
    rank = len(indices.shape)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    found = build.emit("take", [x, indices], shape, axis=int(axis))
    # Axes of `found` in the order of `out`: offsets stand at `offsets`, others between.
    rows = [i for i in range(len(shape)) if not axis <= i < axis + rank]
    columns = list(range(axis, axis + rank))
    order = [rows.pop(0) if i in offsets else columns.pop(0) for i in range(len(out))]
    return build.transpose(found, order)


def _known(build: Builder, equation: Any, x: Value, indices: np.ndarray) -> Value:
    """A part of `x` whose places are known."""
    numbers, sizes = (
        equation.params["dimension_numbers"],
        list(equation.params["slice_sizes"]),
    )
    out = tuple(equation.outvars[0].aval.shape)
    collapsed = numbers.collapsed_slice_dims
    rank = indices.ndim - 1  # of the grid of places
    starts, strides = [0] * len(x.shape), [1] * len(x.shape)
    axis_of: dict[int, int] = {}  # axis of the grid to axis of `x`
    for column, axis in enumerate(numbers.start_index_map):
        places = indices[..., column]
        varying = [a for a in range(rank) if np.ptp(places, axis=a).any()]
        if not varying:
            starts[axis] = int(places.flat[0])
            single = [a for a in range(rank) if places.shape[a] == 1]
            line = next((a for a in single if a not in axis_of), None)
            if axis in collapsed and line is not None:
                axis_of[line] = axis
            continue
        line = varying[0]
        if len(varying) > 1 or line in axis_of or axis not in collapsed:
            raise NotImplementedError("with a pattern of places that is no grid")
        counted = np.moveaxis(places, line, 0).reshape(places.shape[line], -1)[:, 0]
        steps = np.diff(counted)
        if steps.min() != steps.max() or steps[0] <= 0:
            inside = counted.min() >= 0 and counted.max() < x.shape[axis]
            if rank == len(numbers.start_index_map) == 1 and inside:
                taken = build.constant(counted)
                return _taken(build, x, taken, axis, out, numbers.offset_dims)
            raise NotImplementedError("with places that are not evenly spaced")
        starts[axis], strides[axis] = int(counted[0]), int(steps[0])
        sizes[axis], axis_of[line] = len(counted), axis
    for axis, size in enumerate(x.shape):
        if not isinstance(size, int):
            continue
        last = starts[axis] + (sizes[axis] - 1) * strides[axis]
        if starts[axis] < 0 or last >= size:
            raise NotImplementedError("with places outside of the array")
    part = build.cut(x, starts, sizes, strides)
    gone = set(collapsed) - set(axis_of.values())
    kept = [axis for axis in range(len(x.shape)) if axis not in gone]
    part = build.reshape(part, tuple(part.shape[a] for a in kept))
    # Axes of the part in the order of `out`; grid axes of size 1 are put in afterwards.
    offsets = [axis for axis in kept if axis not in axis_of.values()]
    lines = [axis_of.get(line) for line in range(rank)]
    wanted = [
        offsets.pop(0) if i in numbers.offset_dims else lines.pop(0)
        for i in range(len(out))
    ]
    order = [kept.index(axis) for axis in wanted if axis is not None]
    part = build.transpose(part, order)
    return build.reshape(part, out)
