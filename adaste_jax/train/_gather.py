"""Gathers whole weights from pieces on several devices, as bits if they are signs.

Latents, moments and the pieces of the weights stay on their devices. The forward pass
sends one bit a weight, the backward pass the gradient.
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

    Forward: the device that holds the signs packs eight into a byte. The bytes go to
    all devices of the axes `"data"` and `"fsdp"`, and are unpacked there. Backward: the
    gradient is summed and each device keeps its piece. The gather sends a 32nd of the
    bytes of float32. `make_train_step` calls this for `gather="packed"`; call it
    yourself inside a network that gathers layer by layer.

    Args:
        weight: Signs, +1 and -1, floating point; for other values the sign is sent. If
            one is NaN, the whole result is NaN.
        sharding: The sharding of `weight`. An axis that it does not split is packed; if
            there is none, the weight is sent as floats.

    Returns:
        The signs, of the shape and dtype of `weight`, not split over those axes.
    """
    return gather(weight, sharding, packed=True)


def gather(weight: jax.Array, sharding: NamedSharding, *, packed: bool) -> jax.Array:
    """Makes the weight whole along the axes of the batch, in a program of all devices.

    Args:
        weight: The weight.
        sharding: The sharding of the weight.
        packed: Whether the weight is sent as bits.
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
    """Moves an array to a sharding; a gradient is summed on the way.

    Args:
        array: Bits, a weight, or the gradient at the gathered weight.
        sharding: The new sharding: for a gradient that of its latent.
    """
    placed: jax.Array = _lax.with_sharding_constraint(array, sharding)
    return placed


def gather_local(weight: jax.Array, spec: PartitionSpec, *, packed: bool) -> jax.Array:
    """Makes the weight whole along the axes of the batch, within `jax.shard_map`.

    Args:
        weight: The piece of this device.
        spec: How the weight is split.
        packed: Whether the weight is sent as bits.
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
    """This device's piece of the mean of the gradients of all devices.

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
    """Signs from bits, or NaN if `broken`, since no bit stands for NaN."""
    signs = jnp.unpackbits(bits, axis=axis, count=like.shape[axis])
    one = jnp.where(broken, jnp.nan, jnp.ones((), like.dtype))
    return jnp.where(signs > 0, one, -one)


def _packed_axis(shape: tuple[int, ...], spec: PartitionSpec) -> int | None:
    """The axis that wastes the fewest bits, among axes that are not split."""
    free = [
        axis
        for axis, names in enumerate(_mesh.dimensions(spec, len(shape)))
        if not names and shape[axis]
    ]
    return max(free, key=lambda axis: shape[axis] / -(-shape[axis] // 8), default=None)


def _without_batch_axes(spec: PartitionSpec) -> PartitionSpec:
    """The spec after gathering; other axes of the mesh, such as tensor axes, stay."""
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
