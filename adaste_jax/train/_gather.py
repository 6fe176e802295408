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
        packed: As bits.
    """
    whole = NamedSharding(sharding.mesh, _without_batch_axes(sharding.spec))
    if whole.spec == sharding.spec:
        return weight
    axis = _packed_axis(weight.shape, sharding.spec) if packed else None
    if axis is None:
        return jax.lax.with_sharding_constraint(weight, whole)
    bits = jnp.packbits(weight > 0, axis=axis)
    # Packed where the weight lies, and only then sent.
    bits = jax.lax.with_sharding_constraint(bits, sharding)
    bits = jax.lax.with_sharding_constraint(bits, whole)
    return _signs(bits, axis, weight, broken=jnp.any(jnp.isnan(weight)))


def scatter(grad: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Puts a gradient where its latent lies; the sum over devices is done on the way.

    Args:
        grad: The gradient at the gathered weight.
        sharding: Where the latent lies.
    """
    return jax.lax.with_sharding_constraint(grad, sharding)


def gather_local(weight: jax.Array, spec: PartitionSpec, *, packed: bool) -> jax.Array:
    """As `gather`, within `jax.shard_map`.

    Args:
        weight: The piece of this device.
        spec: How the weight is split.
        packed: As bits.
    """
    if not _mesh.names(spec):
        return weight
    axis = _packed_axis(weight.shape, spec) if packed else None
    sent = weight if axis is None else jnp.packbits(weight > 0, axis=axis)
    for dimension, names in enumerate(_mesh.dimensions(spec, weight.ndim)):
        if names:
            sent = jax.lax.all_gather(sent, names, axis=dimension, tiled=True)
    if axis is None:
        return sent
    broken = jnp.any(jnp.isnan(weight)).astype(jnp.int32)
    return _signs(
        sent, axis, weight, broken=jax.lax.pmax(broken, _mesh.names(spec)) > 0
    )


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
            grad = jax.lax.psum_scatter(
                grad, names, scatter_dimension=dimension, tiled=True
            )
            left -= set(names)
    if left:
        grad = jax.lax.psum(grad, tuple(axis for axis in axes if axis in left))
    return grad / jax.lax.axis_size(axes)


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
    return PartitionSpec(*entries)


def _packed_gather_forward(weight, sharding):
    return packed_gather(weight, sharding), None


def _packed_gather_backward(sharding, residuals, grad):
    del residuals
    return (scatter(grad, sharding),)


packed_gather.defvjp(_packed_gather_forward, _packed_gather_backward)
