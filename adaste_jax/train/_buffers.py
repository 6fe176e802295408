"""Which memory arrays lie in, so that none is donated twice."""

import weakref
from typing import Any

import jax
import jax.numpy as jnp


def unshared(tree: Any, *others: Any) -> Any:
    """The tree with a copy of every array whose memory is in it twice, or in `others`.

    A step donates its state, and XLA dies of a buffer that is donated twice, or donated
    and read. One array may be two leaves where kernels were tied or copied, or where
    the state of the network or a teacher began as the parameters.

    Args:
        tree: The state.
        *others: What the step gets besides.
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

    A state that a compiled step has returned shares no memory, so it need not be looked
    at again. Holds nothing alive.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._refs: list[weakref.ref[Any]] = []

    def __call__(self, state: Any, resident: Any) -> bool:
        """Whether this is what was remembered."""
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
    """Whether it is an array, and not one that stands for it while JAX traces."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)


def _buffers(leaf: Any) -> list[tuple[int, int]]:
    """Where the memory of an array begins, on each device of this process."""
    if not is_concrete(leaf) or leaf.is_deleted():
        return []
    if len(leaf.sharding.device_set) == 1:
        (device,) = leaf.sharding.device_set
        return [(device.id, leaf.unsafe_buffer_pointer())]
    return [
        (shard.device.id, shard.data.unsafe_buffer_pointer())
        for shard in leaf.addressable_shards
    ]
