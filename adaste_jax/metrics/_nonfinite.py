"""Finds entries of a tree that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import _paths
from adaste_jax.metrics._count import count


def nonfinite(tree: Any) -> dict[str, int]:
    """Finds where a tree contains NaN or infinity, and how often.

    It makes one compiled pass over each leaf, on the leaf's device. Call it before you
    write a checkpoint or a file: an empty result means that all numbers are finite.

    Args:
        tree: Any pytree: parameters, the state of an optimiser, a whole training state.
            Leaves without floating-point numbers (integers, booleans, random keys,
            `jax.ShapeDtypeStruct`, strings) are skipped.

    Returns:
        For each leaf that is not finite, its path and the number of its entries that
        are NaN or infinite, in the order of the tree.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import metrics
        >>> metrics.nonfinite({"kernel": jnp.array([1.0, jnp.nan]), "step": 3})
        {'kernel': 1}
    """
    counts = jax.device_get([_nonfinite(leaf) for leaf in jax.tree.leaves(tree)])
    return {
        path: int(number)
        for path, number in zip(_paths.distinct(tree), counts, strict=True)
        if number
    }


def _nonfinite(leaf: Any) -> Any:
    """Counts entries that are not finite, for a JAX array in one compiled pass."""
    if isinstance(leaf, float | complex):
        leaf = np.asarray(leaf)
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return 0
    if not jnp.issubdtype(leaf.dtype, jnp.inexact) or not leaf.size:
        return 0
    if isinstance(leaf, jax.Array):
        return _count_nonfinite(leaf)
    return np.count_nonzero(~np.isfinite(leaf))  # as it is: JAX would narrow float64


@jax.jit
def _count_nonfinite(array: jax.Array) -> jax.Array:
    return count(~jnp.isfinite(array), jnp.zeros(array.shape, bool))
