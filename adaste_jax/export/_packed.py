"""Weights as they are stored: bytes, and a scale."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax.export import _pack, _scales

PER_BYTE = {"bits": _pack.WEIGHTS_PER_BYTE, "trits": _pack.TRITS_PER_BYTE}

LARGE = 2**18
"""Weights from which products read bytes. Of fewer, the float32 take less than 1 MB,
and unpacking all of them is faster."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Weights that are a scale times +1 and -1, or times -1, 0 and +1.

    A tree of JAX: bytes and scale are its leaves, so it goes through `jit` and
    `device_put` and stays packed. `load(path, packed=True)` makes it, and
    `apply_packed` runs networks with it.

    Attributes:
        packed: Bytes, uint8, as `pack` or `pack_ternary` makes them along `axes`. Those
            of a dense kernel [in, out] are [ceil(in / 8), out] and go into
            `packed_matmul`, where `axes` is (0,) and `encoding` "bits".
        scale: None for 1; or of shape [], [size of the last axis] or, with a group, the
            number of groups along each axis. Of `dtype` or float16.
        encoding: "bits" for +1 and -1, "trits" for -1, 0 and +1.
        shape: Shape of the weights.
        axes: The packed axes of the weights, neighbours; empty for a scalar.
        dtype: Dtype of the weights, floating point.
        group: How many weights share a scale along each axis; None where the scale is
            of the tensor, or of the last axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import export
        >>> kernel = jnp.array([[0.5, -0.5], [-0.5, -0.5], [0.5, 0.5]])
        >>> bits = export.pack(kernel, axis=0)
        >>> export.Packed(
        ...     bits, jnp.array(0.5), "bits", (3, 2), (0,), kernel.dtype
        ... ).unpack()
        Array([[ 0.5, -0.5],
               [-0.5, -0.5],
               [ 0.5,  0.5]], dtype=float32)
    """

    packed: Any
    scale: Any
    encoding: str = dataclasses.field(metadata={"static": True})
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    axes: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    dtype: np.dtype = dataclasses.field(metadata={"static": True})
    group: tuple[int, ...] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )

    def unpack(self) -> jax.Array:
        """The weights, of `shape` and `dtype`. Works under `jit`."""
        unpack = _pack.unpack if self.encoding == "bits" else _pack.unpack_ternary
        weights = unpack(
            self.packed, self.shape, axis=self.axes or None, dtype=self.dtype
        )
        if self.scale is None:
            return weights
        return _scales.scaled(weights, jnp.asarray(self.scale), self.group)


def is_packed(leaf: Any) -> bool:
    """Whether a leaf is `Packed`, for `jax.tree`."""
    return isinstance(leaf, Packed)


def on_host(packed: Packed) -> np.ndarray:
    """The weights, by NumPy alone."""
    dtype, axes = packed.dtype, packed.axes
    first, merged = _pack.merge(packed.shape, axes or None)
    if packed.encoding == "bits":
        bits = np.unpackbits(
            packed.packed, axis=first, count=merged[first], bitorder="little"
        )
        weights = np.array([-1, 1], dtype)[bits]
    else:
        per_byte = PER_BYTE["trits"]
        powers = np.array([3**j for j in range(per_byte)], np.uint8)
        trits = np.moveaxis(packed.packed, first, -1)[..., None] // powers % np.uint8(3)
        trits = trits.reshape(*trits.shape[:-2], trits.shape[-2] * per_byte)
        trits = np.moveaxis(trits[..., : merged[first]], -1, first)
        weights = np.array([-1, 0, 1], dtype)[trits]
    weights = weights.reshape(packed.shape)
    if packed.scale is None:
        return weights
    # Of rank 0, a product is a scalar.
    return np.asarray(_scales.scaled(weights, packed.scale, packed.group))


def by_columns(packed: Packed) -> Packed:
    """Large weights packed along all axes but the last, as products read them.

    Files pack along all axes where that would leave bytes partly filled. Here a column
    may end in one, which costs less than one bit in a hundred.
    """
    rows = tuple(range(len(packed.shape) - 1))
    if packed.axes == rows or not rows or math.prod(packed.shape) < LARGE:
        return packed
    if math.prod(packed.shape[:-1]) < 100 * PER_BYTE[packed.encoding]:
        return packed
    plain = on_host(dataclasses.replace(packed, scale=None, group=None))
    pack = _pack.pack if packed.encoding == "bits" else _pack.pack_ternary
    found = np.asarray(pack(plain, axis=rows))
    return dataclasses.replace(packed, packed=found, axes=rows)


def columns(packed: Packed, start: jax.Array, width: int) -> Packed:
    """Some entries along the last axis, along which nothing may be packed."""
    scale, group = packed.scale, packed.group

    def cut(array: Any) -> Any:
        array = jnp.asarray(array)
        return jax.lax.dynamic_slice_in_dim(array, start, width, axis=-1)

    if scale is not None and scale.ndim:
        if group is not None:  # each entry gets its own: the cut may be within a group
            scale = jnp.repeat(jnp.asarray(scale), group[-1], axis=-1)
            group = (*group[:-1], 1)
        scale = cut(scale)
    shape = (*packed.shape[:-1], width)
    return dataclasses.replace(
        packed, packed=cut(packed.packed), scale=scale, shape=shape, group=group
    )
