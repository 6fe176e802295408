"""Finds arrays that share memory, so that no buffer is donated twice."""

import weakref
from typing import Any

import jax
import jax.numpy as jnp


def unshared(tree: Any, *others: Any) -> Any:
    """Copies every array whose memory occurs twice in the tree, or also in `others`.

    A step donates its state, and XLA crashes if a buffer is donated twice, or donated
    and read. One array may be two leaves if kernels were tied or copied, or if the
    state of the network or a teacher started as the parameters.

    Args:
        tree: The state.
        *others: Other arguments of the step.
    """
    taken = {buffer for leaf in jax.tree.leaves(others) for buffer in _buffers(leaf)}

    def own(leaf: Any) -> Any:
        buffers = _buffers(leaf)
        if taken.isdisjoint(buffers):
            taken.update(buffers)
            return leaf
        return jnp.copy(leaf)

    return jax.tree.map(own, tree)


class Known:
    """Remembers that the state and the resident data of the last call share nothing.

    A state that a compiled step has returned shares no memory, so it need not be
    checked again. This keeps no array alive.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._refs: list[weakref.ref[Any]] = []

    def __call__(self, state: Any, resident: Any) -> bool:
        """Whether these are the remembered arguments."""
        given = [state, *_device_leaves(resident)]
        return len(given) == len(self._refs) and all(
            ref() is each for ref, each in zip(self._refs, given, strict=True)
        )

    def remember(self, state: Any, resident: Any) -> None:
        """Remembers a state that was just returned."""
        given = [state, *_device_leaves(resident)]
        self._refs = [weakref.ref(each) for each in given]


def _device_leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]


def is_concrete(leaf: Any) -> bool:
    """Whether the value is an array, and not a tracer."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)


def _buffers(leaf: Any) -> list[tuple[int, int]]:
    """Start addresses of an array's memory, on each device of this process."""
    if not is_concrete(leaf) or leaf.is_deleted():
        return []
    if len(leaf.sharding.device_set) == 1:
        (device,) = leaf.sharding.device_set
        return [(device.id, leaf.unsafe_buffer_pointer())]
    return [
        (shard.device.id, shard.data.unsafe_buffer_pointer())
        for shard in leaf.addressable_shards
    ]
