"""Where a tree is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import _paths
from adaste_jax.metrics._count import count


def nonfinite(tree: Any) -> dict[str, int]:
    """Where a tree holds NaN or infinity, and how often.

    One compiled pass over each leaf, on the device where it lies. Call it before a
    checkpoint or a file is written: an empty answer means that all numbers are finite.

    Args:
        tree: Any pytree: parameters, the state of an optimiser, a whole training state.
            Leaves without floating-point numbers (integers, booleans, random keys,
            `jax.ShapeDtypeStruct`, strings) are passed over.

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
    """How many entries are not finite: of a JAX array by one compiled pass."""
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
