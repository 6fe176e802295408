"""Whole weights from pieces that lie on several devices, as bits where they are signs.

Latents, moments and the weights made of them stay where they are; what travels for the
forward pass is one bit a weight, and for the backward pass the gradient.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from adaste_jax.train import _mesh

_lax: Any = jax.lax  # these functions of it have no types


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def packed_gather(weight: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Gathers a split weight of signs as packed bits, under `jax.jit`.

    Forward: eight signs become a byte on the device that holds them, the bytes go to
    all devices of the axes `"data"` and `"fsdp"`, and are unpacked there. Backward:
    the gradient is summed and each device keeps its piece. Traffic of the gather is a
    32nd of that of float32. `make_train_step(gather="packed")` calls this; call it
    inside a network that gathers layer by layer.

    Args:
        weight: Signs, +1 and -1, floating point; of other values the sign is sent. If
            one is NaN, all that is gathered is NaN.
        sharding: Where `weight` lies. An axis that it does not split is packed; where
            there is none the weight travels as it is.

    Returns:
        The signs, of the shape and dtype of `weight`, not split over those axes.
    """
    return gather(weight, sharding, packed=True)


def gather(weight: jax.Array, sharding: NamedSharding, *, packed: bool) -> jax.Array:
    """Makes the weight whole along the axes of the batch, in a program of all devices.

    Args:
        weight: The weight.
        sharding: Where it lies.
        packed: Whether it travels as bits.
    """
    whole = NamedSharding(sharding.mesh, _without_batch_axes(sharding.spec))
    if whole.spec == sharding.spec:
        return weight
    axis = _packed_axis(weight.shape, sharding.spec) if packed else None
    if axis is None:
        return place(weight, whole)
    bits = jnp.packbits(weight > 0, axis=axis)
    # Packed where the weight lies, and only then sent.
    bits = place(place(bits, sharding), whole)
    return _signs(bits, axis, weight, broken=jnp.any(jnp.isnan(weight)))


def place(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Puts an array where it belongs; of a gradient the sum is done on the way.

    Args:
        array: Bits, a weight, or the gradient at the gathered weight.
        sharding: Where it belongs: for a gradient where its latent lies.
    """
    placed: jax.Array = _lax.with_sharding_constraint(array, sharding)
    return placed


def gather_local(weight: jax.Array, spec: PartitionSpec, *, packed: bool) -> jax.Array:
    """Makes the weight whole along the axes of the batch, within `jax.shard_map`.

    Args:
        weight: The piece of this device.
        spec: How the weight is split.
        packed: Whether it travels as bits.
    """
    if not _mesh.names(spec):
        return weight
    axis = _packed_axis(weight.shape, spec) if packed else None
    sent = weight if axis is None else jnp.packbits(weight > 0, axis=axis)
    for dimension, names in enumerate(_mesh.dimensions(spec, weight.ndim)):
        if names:
            sent = _lax.all_gather(sent, names, axis=dimension, tiled=True)
    if axis is None:
        return sent
    broken = jnp.any(jnp.isnan(weight)).astype(jnp.int32)
    return _signs(sent, axis, weight, broken=_lax.pmax(broken, _mesh.names(spec)) > 0)


def scatter_local(
    grad: jax.Array, spec: PartitionSpec, axes: tuple[str, ...]
) -> jax.Array:
    """Mean of the gradients of all devices; of it, the piece of this one.

    Args:
        grad: The gradient of this device at the whole weight.
        spec: How the latent is split.
        axes: The mesh axes over which the batch is split.
    """
    left = set(axes)
    for dimension, names in enumerate(_mesh.dimensions(spec, grad.ndim)):
        if names:
            grad = _lax.psum_scatter(
                grad, names, scatter_dimension=dimension, tiled=True
            )
            left -= set(names)
    if left:
        grad = _lax.psum(grad, tuple(axis for axis in axes if axis in left))
    mean: jax.Array = grad / jax.lax.axis_size(axes)
    return mean


def _signs(
    bits: jax.Array, axis: int, like: jax.Array, *, broken: jax.Array
) -> jax.Array:
    """Signs of bits; NaN, for which there is no bit, if `broken`."""
    signs = jnp.unpackbits(bits, axis=axis, count=like.shape[axis])
    one = jnp.where(broken, jnp.nan, jnp.ones((), like.dtype))
    return jnp.where(signs > 0, one, -one)


def _packed_axis(shape: tuple[int, ...], spec: PartitionSpec) -> int | None:
    """The axis that wastes fewest bits; one that is not split, so bytes stay whole."""
    free = [
        axis
        for axis, names in enumerate(_mesh.dimensions(spec, len(shape)))
        if not names and shape[axis]
    ]
    return max(free, key=lambda axis: shape[axis] / -(-shape[axis] // 8), default=None)


def _without_batch_axes(spec: PartitionSpec) -> PartitionSpec:
    """The spec of what is gathered: other axes of the mesh, say of tensors, stay."""
    batch = (_mesh.DATA_AXIS, _mesh.FSDP_AXIS)
    entries: list[Any] = []
    for names in _mesh.dimensions(spec, len(spec)):
        kept = tuple(name for name in names if name not in batch)
        entries.append(kept if len(kept) > 1 else kept[0] if kept else None)
    while entries and entries[-1] is None:
        entries.pop()
    return _mesh.P(*entries)


def _packed_gather_forward(
    weight: jax.Array, sharding: NamedSharding
) -> tuple[jax.Array, None]:
    return packed_gather(weight, sharding), None


def _packed_gather_backward(
    sharding: NamedSharding, residuals: None, grad: jax.Array
) -> tuple[jax.Array]:
    del residuals
    return (place(grad, sharding),)


packed_gather.defvjp(_packed_gather_forward, _packed_gather_backward)
