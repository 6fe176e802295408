"""What to watch while binary weights train: flips, saturation, dead gradients.

Every share takes parameter trees, looks at the leaves that `where` selects (default:
`kernels()`), gives a float32 scalar, and may be called inside `jit`. It is between 0
and 1, 0 where there are no entries, and NaN where one of them is NaN. `by_path` gives a
share of each leaf; `nonfinite` counts what is NaN or infinite in any tree.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import _numerics, _paths


def flip_rate(
    before: Any, after: Any, *, where: _paths.Where | None = None
) -> jax.Array:
    """Share of latents whose sign, and so whose deployed weight, has changed.

    The share of bits that flip between two points of training; the learning curve of
    a binary network. A rate that does not fall means weights that chatter about zero.

    Args:
        before: Latents.
        after: Latents later, of the same structure.
        where: As in `binarize`.

    Returns:
        A scalar.

    Raises:
        ValueError: If nothing is selected.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import metrics
        >>> before = {"kernel": jnp.array([0.1, 0.0, -2.0, 3.0])}
        >>> after = {"kernel": jnp.array([0.2, -0.1, -1.0, 0.0])}
        >>> float(metrics.flip_rate(before, after))
        0.25
    """
    return _share(
        [
            (
                _numerics.sign(old) != _numerics.sign(new),
                jnp.isnan(old) | jnp.isnan(new),
            )
            for old, new in zip(
                _selected(before, where), _selected(after, where), strict=True
            )
        ]
    )


def saturated_share(weights: Any, *, where: _paths.Where | None = None) -> jax.Array:
    """Share of weights that have the largest magnitude of their tensor, to 1e-6.

    Under annealing it rises to 1: then a rescaled sign is all that is left.

    Args:
        weights: What `binarize` gave.
        where: As in `binarize`.

    Returns:
        A scalar.

    Raises:
        ValueError: If nothing is selected.
    """
    return _share(
        [
            (
                jnp.abs(leaf) >= (1 - 1e-6) * jnp.max(jnp.abs(leaf), initial=0),
                jnp.isnan(leaf),
            )
            for leaf in _selected(weights, where)
        ]
    )


def zero_share(grads: Any, *, where: _paths.Where | None = None) -> jax.Array:
    """Share of entries that are exactly zero: latents that a backward rule holds.

    Args:
        grads: Gradients of the latents.
        where: As in `binarize`.

    Returns:
        A scalar.

    Raises:
        ValueError: If nothing is selected.
    """
    return _share([(leaf == 0, jnp.isnan(leaf)) for leaf in _selected(grads, where)])


def pack_signs(params: Any, *, where: _paths.Where | None = None) -> list[jax.Array]:
    """Signs of the selected latents, one bit each, to compare with later.

    A bit cannot be NaN: one of a NaN is 0.

    Args:
        params: Latents.
        where: As in `binarize`.

    Returns:
        A uint8 vector of ceil(size / 8) bytes for each selected leaf.

    Raises:
        ValueError: If nothing is selected.
    """
    return [
        jnp.packbits(_numerics.sign(leaf).ravel() > 0)
        if leaf.size
        else jnp.zeros((0,), jnp.uint8)  # jnp.packbits divides by the number of bytes
        for leaf in _selected(params, where)
    ]


def flip_rate_since(
    signs: list[jax.Array], params: Any, *, where: _paths.Where | None = None
) -> jax.Array:
    """As `flip_rate`, against signs kept by `pack_signs`.

    Args:
        signs: What `pack_signs` gave.
        params: Latents later.
        where: As in `pack_signs`.

    Returns:
        A scalar.

    Raises:
        ValueError: If nothing is selected.
    """
    leaves = _selected(params, where)
    size = sum(leaf.size for leaf in leaves)
    flips = [
        jnp.sum(jax.lax.population_count(old ^ new), dtype=jnp.float32)
        for old, new in zip(signs, pack_signs(params, where=where), strict=True)
    ]
    # Counts nothing, and is NaN if a latent is.
    lost = [_count(jnp.zeros(leaf.shape, bool), jnp.isnan(leaf)) for leaf in leaves]
    return sum([*flips, *lost], jnp.zeros(())) / max(size, 1)


def by_path(
    metric: Callable[..., jax.Array], *trees: Any, where: _paths.Where | None = None
) -> dict[str, jax.Array]:
    """A metric of each selected leaf by itself: which layer chatters, which is frozen.

    Args:
        metric: `flip_rate`, `saturated_share`, `zero_share` or a function like them.
        *trees: Its trees, all of one structure.
        where: As in `binarize`.

    Returns:
        What the metric gives, under the paths of the leaves, in the order of the tree.
        Where two leaves share a path because of a slash in a key, that key is escaped:
        "a~1b/kernel" is the kernel under "a/b".

    Raises:
        ValueError: If nothing is selected, or the trees differ in structure.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import metrics
        >>> before = {"stem": {"kernel": jnp.array([0.1, 2.0])},
        ...           "head": {"kernel": jnp.array([0.1, 2.0])}}
        >>> after = jax.tree.map(lambda leaf: leaf - 0.5, before)
        >>> flips = metrics.by_path(metrics.flip_rate, before, after)
        >>> {path: float(share) for path, share in flips.items()}
        {'head/kernel': 0.5, 'stem/kernel': 0.5}
    """
    structure: Any = jax.tree.structure(trees[0])
    for tree in trees[1:]:
        if jax.tree.structure(tree) != structure:
            raise ValueError(
                "the trees must have one structure; there are "
                f"{structure} and {jax.tree.structure(tree)}."
            )
    chosen = jax.tree.leaves(_paths.select(trees[0], where))
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    return {
        path: metric(*parts, where=True)
        for path, parts, selected in zip(
            _paths.distinct(trees[0]), leaves, chosen, strict=True
        )
        if selected
    }


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
        path: int(count)
        for path, count in zip(_paths.distinct(tree), counts, strict=True)
        if count
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
    return _count(~jnp.isfinite(array), jnp.zeros(array.shape, bool))


def _selected(tree: Any, where: _paths.Where | None) -> list[jax.Array]:
    mask = jax.tree.leaves(_paths.select(tree, where))
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf, chosen in zip(leaves, mask, strict=True) if chosen]


def _share(leaves: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Which entries count, and which are NaN, for each leaf."""
    size = sum(counts.size for counts, _ in leaves)
    return sum(itertools.starmap(_count, leaves), jnp.zeros(())) / max(size, 1)


def _count(indicator: jax.Array, nan: jax.Array) -> jax.Array:
    """How many entries of `indicator` are true, and NaN if one of `nan` is.

    On one device by way of packed bits, since XLA does not vectorise a sum of
    comparisons on the CPU: 1 ms for 8 million entries, and 13 ms with `jnp.sum` (jax
    0.10.2, two cores). Both are packed and summed up in one pass, so NaN costs nothing
    more. Of an array that is split, the bits would have to be gathered.
    """
    if not indicator.size:
        return jnp.zeros(())
    if jax.device_count() > 1:
        return jnp.sum(jnp.where(nan, jnp.nan, indicator.astype(jnp.float32)))
    bits, lost = (
        jnp.packbits(jnp.atleast_1d(mask), axis=-1) for mask in (indicator, nan)
    )
    ones = jax.lax.population_count(bits).astype(jnp.float32)
    return jnp.sum(jnp.where(lost > 0, jnp.nan, ones))
