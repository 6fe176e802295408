"""Eight binary weights, or five ternary ones, in a byte.

The packed axis is cut into groups, padded at the end to whole bytes, and each group
becomes one byte. Binary: bit j of a byte, of value 2^j, is 1 where weight j of the
group is +1, which is `numpy.packbits(weights > 0, bitorder="little")`; padding bits
are 0. Ternary: a byte is the sum of (weight j + 1) 3^j, at most 242; padding is 0.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from adaste_jax import _numerics

Axis = int | Sequence[int] | None
"""The packed axis: one axis, or neighbouring axes, which are flattened in C order into
one, or None for all of them."""

WEIGHTS_PER_BYTE = 8
TRITS_PER_BYTE = 5


def pack(weights: ArrayLike, *, axis: Axis = None) -> jax.Array:
    """Packs signs, eight a byte: 1 where a weight or latent is >= 0, +1, else 0.

    By default all axes are flattened, and n weights take ceil(n / 8) bytes. With an
    axis, the others keep their places, so that sharding along them is kept and a byte
    never mixes rows. `packed_matmul` takes a dense kernel [in, out] packed with
    `axis=0`; with `axis=(0, 1, 2)` a convolution kernel [height, width, in, out]
    becomes such a matrix. For a tree use `jax.tree.map`.

    Args:
        weights: Weights or latents, floating point or signed integers, any shape. The
            sign is that of `adaste_jax.deploy`: +1 for 0.
        axis: The packed axis; neighbouring axes, flattened into one; or None for all.

    Returns:
        Bytes, uint8. With sizes [..., n, ...] and n that of the packed axis, the shape
        is [..., ceil(n / 8), ...].

    Raises:
        TypeError: If `weights` are not real numbers.
        ValueError: If `axis` is out of range, its axes are not neighbours, or a weight
            is NaN, which has no sign. (Under `jit` that cannot be seen: it packs as
            -1.)

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> export.pack(jnp.array([1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0]))
        Array([9, 1], dtype=uint8)
    """
    array = _check_real(weights)
    if not array.size:  # jnp.packbits divides by the number of groups
        return jnp.zeros(packed_shape(array.shape, axis=axis), jnp.uint8)
    packed: jax.Array = _pack_bits(array, *merge(array.shape, axis))
    return packed


def unpack(
    packed: ArrayLike,
    shape: Sequence[int],
    *,
    axis: Axis = None,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Undoes `pack`: weights that are exactly +1 or -1.

    Args:
        packed: Bytes, as `pack` returns them.
        shape: Shape of the weights. It cannot be read off the bytes, which are padded.
        axis: The packed axis: one axis, neighbouring axes, or None for all.
        dtype: Dtype of the weights.

    Returns:
        Weights of the given shape and dtype.

    Raises:
        TypeError: If `packed` is not uint8.
        ValueError: If the bytes do not have the shape that `pack` gives.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> export.unpack(jnp.array([9, 1], jnp.uint8), (3, 3)).astype(int)
        Array([[ 1, -1, -1],
               [ 1, -1, -1],
               [-1, -1,  1]], dtype=int32)
    """
    array = _check_packed(packed, shape, axis, WEIGHTS_PER_BYTE)
    if not array.size:
        return jnp.zeros(shape, dtype)
    weights: jax.Array = _unpack_bits(
        array, *merge(shape, axis), dtype=jnp.dtype(dtype)
    )
    return weights.reshape(shape)


def pack_ternary(weights: ArrayLike, *, axis: Axis = None) -> jax.Array:
    """Packs -1, 0 and +1, five a byte: 1.6 bits a weight.

    Args:
        weights: Weights; of other values the sign is taken, and NaN is refused. Any
            shape.
        axis: The packed axis: one axis, neighbouring axes, or None for all.

    Returns:
        Bytes, uint8, of shape [..., ceil(n / 5), ...].

    Raises:
        TypeError: If `weights` are not real numbers.
        ValueError: If `axis` is out of range, its axes are not neighbours, or a weight
            is NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> export.pack_ternary(jnp.array([-1.0, 0.0, 1.0, 0.0, 0.0, 1.0]))
        Array([129,   2], dtype=uint8)
    """
    array = _check_real(weights)
    packed: jax.Array = _pack_trits(array, *merge(array.shape, axis))
    return packed


def unpack_ternary(
    packed: ArrayLike,
    shape: Sequence[int],
    *,
    axis: Axis = None,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Undoes `pack_ternary`: weights that are -1, 0 or +1.

    Args:
        packed: Bytes, as `pack_ternary` returns them: none above 242.
        shape: Shape of the weights. The bytes are padded and do not tell it.
        axis: The packed axis: one axis, neighbouring axes, or None for all.
        dtype: Dtype of the weights.

    Returns:
        Weights of the given shape and dtype.

    Raises:
        TypeError: If `packed` is not uint8.
        ValueError: If the bytes do not have the shape that `pack_ternary` gives.
    """
    array = _check_packed(packed, shape, axis, TRITS_PER_BYTE)
    weights: jax.Array = _unpack_trits(
        array, *merge(shape, axis), dtype=jnp.dtype(dtype)
    )
    return weights.reshape(shape)


def packed_shape(
    shape: Sequence[int], *, axis: Axis = None, per_byte: int = WEIGHTS_PER_BYTE
) -> tuple[int, ...]:
    """Shape of the bytes that `pack` makes of weights of a shape.

    Args:
        shape: Shape of the weights.
        axis: The packed axis: one axis, neighbouring axes, or None for all.
        per_byte: 8 for `pack`, 5 for `pack_ternary`.

    Returns:
        The shape; its product is the number of bytes.

    Raises:
        ValueError: If `axis` is out of range, or its axes are not neighbours.

    Example:
        >>> from adaste_jax import export
        >>> export.packed_shape((3, 3, 16, 32), axis=(0, 1, 2))
        (18, 32)
    """
    first, merged = merge(shape, axis)
    return (*merged[:first], -(-merged[first] // per_byte), *merged[first + 1 :])


def merge(shape: Sequence[int], axis: Axis) -> tuple[int, tuple[int, ...]]:
    """The place of the packed axis, and the shape with its axes flattened into one."""
    rank = len(shape)
    if axis is None:
        first, stop = 0, rank
    else:
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        wrapped = [a + rank if a < 0 else a for a in axes]
        first, stop = (wrapped[0], wrapped[-1] + 1) if wrapped else (0, 0)
        if wrapped != list(range(first, stop)) or not 0 <= first < stop <= rank:
            raise ValueError(
                f"`axis` must be one axis, neighbouring axes in rising order, or None; "
                f"got {axis!r} for weights of shape {tuple(shape)}."
            )
    size = math.prod(shape[first:stop])
    return first, (*shape[:first], size, *shape[stop:])


@functools.partial(jax.jit, static_argnames=("first", "merged"))
def _pack_bits(weights: jax.Array, first: int, merged: tuple[int, ...]) -> jax.Array:
    positive = _numerics.sign(weights).reshape(merged) > 0
    return jnp.packbits(positive, axis=first, bitorder="little")


@functools.partial(jax.jit, static_argnames=("first", "merged", "dtype"))
def _unpack_bits(
    packed: jax.Array, first: int, merged: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    masks = jnp.left_shift(jnp.uint8(1), jnp.arange(8, dtype=jnp.uint8))
    bits = _spread(packed, first) & _along(masks, first, packed.ndim)
    one = jnp.ones((), dtype)
    return _joined(jnp.where(bits != 0, one, -one), first, merged)


@functools.partial(jax.jit, static_argnames=("first", "merged"))
def _pack_trits(weights: jax.Array, first: int, merged: tuple[int, ...]) -> jax.Array:
    digits = jnp.sign(weights).astype(jnp.int8).astype(jnp.uint8) + jnp.uint8(1)
    digits = jnp.moveaxis(digits.reshape(merged), first, -1)
    count = -(-merged[first] // TRITS_PER_BYTE)
    padding = count * TRITS_PER_BYTE - merged[first]
    digits = jnp.pad(digits, [(0, 0)] * (digits.ndim - 1) + [(0, padding)])
    groups = digits.reshape(*digits.shape[:-1], count, TRITS_PER_BYTE)
    powers = _along(_powers(), digits.ndim - 1, digits.ndim)
    packed = jnp.sum(groups * powers, axis=-1, dtype=jnp.uint8)
    return jnp.moveaxis(packed, -1, first)


@functools.partial(jax.jit, static_argnames=("first", "merged", "dtype"))
def _unpack_trits(
    packed: jax.Array, first: int, merged: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    groups = _spread(packed, first).astype(jnp.int32)
    powers = _along(_powers(), first, packed.ndim).astype(jnp.int32)
    # byte // 3^j without a division, which no CPU vectorises
    quotients = groups * -(-(2**14) // powers) >> 14
    digits = quotients - 3 * (quotients * 171 >> 9)
    return _joined((digits - 1).astype(dtype), first, merged)


def _spread(packed: jax.Array, first: int) -> jax.Array:
    """Bytes with an axis for their weights, behind the packed one.

    So the last axis stays the last: along it CPUs compute many weights at once.
    """
    return jnp.expand_dims(packed, first + 1)


def _along(values: jax.Array, first: int, rank: int) -> jax.Array:
    """A vector along the axis that `_spread` adds to an array of a rank."""
    return values.reshape(*[1] * (first + 1), -1, *[1] * (rank - first - 1))


def _joined(weights: jax.Array, first: int, merged: tuple[int, ...]) -> jax.Array:
    """Weights [..., bytes, of a byte, ...] along one axis, without the padding."""
    padded = weights.shape[first] * weights.shape[first + 1]
    joined = weights.reshape(*merged[:first], padded, *merged[first + 1 :])
    return jax.lax.slice_in_dim(joined, 0, merged[first], axis=first)


def _powers() -> jax.Array:
    return jnp.array([3**j for j in range(TRITS_PER_BYTE)], jnp.uint8)


def _check_real(weights: ArrayLike) -> jax.Array:
    array = jnp.asarray(weights)
    if not (
        jnp.issubdtype(array.dtype, jnp.floating)
        or jnp.issubdtype(array.dtype, jnp.signedinteger)
    ):
        raise TypeError(
            f"weights must be floating point or signed integers, got {array.dtype} of "
            f"shape {array.shape}."
        )
    if isinstance(array, jax.core.Tracer) or array.dtype.kind == "i":
        return array
    lost = int(jnp.sum(jnp.isnan(array)))
    if lost:
        raise ValueError(
            f"NaN has no sign, and {lost} of {array.size} weights are NaN (shape "
            f"{array.shape}). Training has diverged: take a checkpoint from before."
        )
    return array


def _check_packed(
    packed: ArrayLike, shape: Sequence[int], axis: Axis, per_byte: int
) -> jax.Array:
    array = jnp.asarray(packed)
    if array.dtype != jnp.uint8:
        raise TypeError(f"packed weights are uint8, got {array.dtype}.")
    expected = packed_shape(shape, axis=axis, per_byte=per_byte)
    if array.shape != expected:
        raise ValueError(
            f"weights of shape {tuple(shape)} packed along axis {axis!r} are bytes of "
            f"shape {expected}, got {array.shape}."
        )
    return array
