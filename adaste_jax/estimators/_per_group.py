"""Applies any estimator to groups of inputs, so that each group has its own scale.

Inference engines for one-bit weights store a scale for each group of inputs: llama.cpp
for 128 (Q1_0), ONNX's MatMulNBits for 16, 32, 64, 128 and so on.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from adaste_jax.estimators import _base

Axes = int | Sequence[int]
"""The axis of the inputs, or neighbouring axes, flattened in C order."""


def per_group(
    estimator: Callable[..., jax.Array], size: int, *, axis: Axes = -2
) -> Callable[..., jax.Array]:
    """Makes an estimator that maps each group of `size` inputs on its own.

        w[i, j] = estimator(t[G, j])[i],   G the group of `size` inputs that holds i

    A kernel [in, out] has in / size groups in each column. The estimator gets the
    latents of one group of one output as a column [size, 1], so that its `axis`, -1 or
    None, gives one scale per group. Forward and backward are those of the estimator for
    that column: gradients of scales stay within a group, and a rule that is additive in
    g stays additive.

    Args:
        estimator: Map from latents to weights of the same shape, from `estimators`.
        size: Number of inputs in a group, at least 1; engines take 128 or 64. It must
            divide the number of inputs.
        axis: Axis of the inputs. The default is that of a dense kernel [in, out] and of
            a convolution [height, width, in, out], whose groups lie within one position
            of the window. Use -1 for an embedding [rows, width], whose rows have
            groups; 0 for a product [in, heads, width]; and (0, 1) for a product
            [heads, width, out], whose groups are whole heads or parts of one head.

    Returns:
        A map of latents. Keywords are passed on to the estimator, and may be traced. A
        `key` is split, so that each group has its own.

    Raises:
        TypeError: If `size` is not an integer, or, when called, if latents are not
            floating point.
        ValueError: If `size` is less than 1, or, when called, if a latent has no such
            axis, `size` does not divide it, or weights have another shape than latents.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([[1.0], [-3.0], [0.25], [0.75]])
        >>> estimators.per_group(estimators.scaled_sign, 2)(latent)[:, 0]
        Array([ 2. , -2. ,  0.5,  0.5], dtype=float32)
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"`size` must be an integer, got {size!r}.")
    if size < 1:
        raise ValueError(f"`size` must be at least 1, got {size}.")

    def of_group(latent: jax.Array, keyed: dict[str, Any], hyper: Any) -> jax.Array:
        column = latent.reshape(size, 1)
        weights = estimator(column, **keyed, **hyper)
        if weights.shape != column.shape:
            raise ValueError(
                "`per_group` needs an estimator whose weights have the shape of the "
                f"latents; of latents {column.shape} it made {weights.shape}. "
                "Estimators with several latents for each weight cannot be grouped."
            )
        return weights.reshape(latent.shape)

    def grouped(latent: Any, *, key: jax.Array | None = None, **hyper: Any) -> Any:
        latent = _base.check_latent(latent)
        if not latent.size:  # no groups of any size; but the keywords are looked at
            keyed = {} if key is None else {"key": key}
            struct: Any = jax.ShapeDtypeStruct
            one = struct((size,), latent.dtype)
            jax.eval_shape(lambda column: of_group(column, keyed, hyper), one)
            return latent
        counts, apart = divide(latent.shape, block_of(latent.shape, size, axis))
        keyed = {} if key is None else {"key": jax.random.split(key, counts)}

        def mapped(latent: jax.Array, keyed: dict[str, Any]) -> jax.Array:
            return of_group(latent, keyed, hyper)

        # The axes of counts and blocks alternate. Mapped from outside in, those of the
        # blocks before them are all that is left in front. No axis moves, so that
        # sharding along any of them is kept.
        for place in reversed(range(latent.ndim)):
            mapped = jax.vmap(mapped, in_axes=(place, 0), out_axes=place)
        return mapped(latent.reshape(apart), keyed).reshape(latent.shape)

    return grouped


def block_of(shape: Sequence[int], size: int, axis: Axes = -2) -> tuple[int, ...]:
    """The shape of a group in a tensor: `size` entries along axes, and 1 elsewhere.

    Raises:
        ValueError: If there are no such axes, if groups do not fill them, or if a group
            would be part of several rows of the last axis.
    """
    rank = len(shape)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    places = [a + rank if -rank <= a < 0 else a for a in axes]
    if not places or places != [p for p in range(rank) if p in places]:
        raise ValueError(
            f"`axis={axis}` is not an axis of a latent of shape {tuple(shape)}, and "
            "not several neighbouring axes in rising order. Pass the axis of the "
            "inputs: -2 for [in, out], -1 for an embedding [rows, width]."
        )
    if places[-1] - places[0] >= len(places):
        raise ValueError(f"`axis={axis}` must name neighbouring axes.")
    count = math.prod(shape[place] for place in places)
    if count % size:
        below, above = count // size * size, -(-count // size) * size
        do = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"groups of {size} inputs do not fill {count}, the inputs of a latent of "
            f"shape {tuple(shape)} along `axis={axis}`: the last would be short. Use "
            f"{do} inputs, or a size that divides {count}, or leave the leaf out by "
            "`where`."
        )
    block, left = [1] * rank, size
    for place in reversed(places):
        length = shape[place]
        block[place] = min(left, length) or 1
        whole = length % block[place] == 0 and left % block[place] == 0
        if not whole or (block[place] < length and left > block[place]):
            raise ValueError(
                f"groups of {size} do not fit the axes `axis={axis}` of a latent of "
                f"shape {tuple(shape)}: a group must be part of one row of the last "
                "axis, or whole rows."
            )
        left //= block[place]
    return tuple(block)


def divide(
    shape: Sequence[int], block: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts of blocks along each axis; and the shape with each axis cut in two."""
    counts = tuple(n // b for n, b in zip(shape, block, strict=True))
    both = zip(counts, block, strict=True)
    return counts, tuple(length for pair in both for length in pair)
