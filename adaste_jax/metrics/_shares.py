"""Shares of latents, weights and gradients."""

from collections.abc import Callable
from typing import Any

import jax

from adaste_jax import _paths
from adaste_jax.metrics import _count


def flip_rate(
    before: Any,
    after: Any,
    *,
    method: _paths.Method | None = None,
    where: _paths.Where | None = None,
) -> jax.Array:
    """Share of weights whose sign, as shipped, has changed.

    This is the share of bits that flip between two points of training, the learning
    curve of a binary network. If it does not fall, latents keep crossing zero.

    Args:
        before: Parameters.
        after: Parameters later, of the same structure.
        method: The training method, which says which leaves are latents.
        where: Which leaves are latents, if no method is given.

    Returns:
        A scalar.

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If `where` selects nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import metrics
        >>> before = {"kernel": jnp.array([0.1, 0.0, -2.0, 3.0])}
        >>> after = {"kernel": jnp.array([0.2, -0.1, -1.0, 0.0])}
        >>> float(metrics.flip_rate(before, after))
        0.25
    """
    old = _selected(before, where, method, shipped=True)
    new = _selected(after, where, method, shipped=True)
    return _count.share(_count.changes, old, new)


def saturated_share(
    weights: Any,
    *,
    method: _paths.Method | None = None,
    where: _paths.Where | None = None,
) -> jax.Array:
    """Share of weights that have the largest magnitude of their tensor, to 1e-6.

    Under annealing it rises to 1; then the weights are rescaled signs.

    Args:
        weights: What the network sees: `method.weights(params, step)`.
        method: The training method, which says which leaves are latents.
        where: Which leaves are latents, if no method is given.

    Returns:
        A scalar.

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If `where` selects nothing.
    """
    leaves = _selected(weights, where, method)
    return _count.share(_count.saturated, leaves)


def zero_share(
    grads: Any,
    *,
    method: _paths.Method | None = None,
    where: _paths.Where | None = None,
) -> jax.Array:
    """Share of gradients that are exactly zero: latents that cannot move.

    Args:
        grads: Gradients of the latents.
        method: The training method, which says which leaves are latents.
        where: Which leaves are latents, if no method is given.

    Returns:
        A scalar.

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If `where` selects nothing.
    """
    leaves = _selected(grads, where, method)
    return _count.share(_count.zeros, leaves)


def pack_signs(
    params: Any,
    *,
    method: _paths.Method | None = None,
    where: _paths.Where | None = None,
) -> list[jax.Array]:
    """Signs of the shipped weights, one bit each, to compare with later.

    A bit cannot be NaN; the bit of a NaN is 0.

    Args:
        params: Parameters.
        method: The training method, which says which leaves are latents.
        where: Which leaves are latents, if no method is given.

    Returns:
        A uint8 vector of ceil(size / 8) bytes for each selected leaf.

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If `where` selects nothing.
    """
    leaves = _selected(params, where, method, shipped=True)
    return _count.positive(leaves)


def flip_rate_since(
    signs: list[jax.Array],
    params: Any,
    *,
    method: _paths.Method | None = None,
    where: _paths.Where | None = None,
) -> jax.Array:
    """Share of weights whose sign has changed since `pack_signs` kept it.

    Args:
        signs: The result of `pack_signs`.
        params: Parameters later.
        method: The training method, which says which leaves are latents.
        where: Which leaves are latents, if no method is given.

    Returns:
        A scalar.

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If `where` selects nothing.
    """
    leaves = _selected(params, where, method, shipped=True)
    return _count.share(_count.flips, signs, leaves)


def by_path(
    metric: Callable[..., jax.Array],
    *trees: Any,
    method: _paths.Method | None = None,
    where: _paths.Where | None = None,
) -> dict[str, jax.Array]:
    """A metric for each selected leaf, to see which layers flip and which are frozen.

    Args:
        metric: `flip_rate`, `saturated_share`, `zero_share` or a function like them. It
            is called with one leaf of each tree and with `where=True`.
        *trees: The trees that the metric takes, all of one structure. For flips of
            shipped weights, give the results of `method.deploy`.
        method: The training method, which says which leaves are latents.
        where: Which leaves are latents, if no method is given.

    Returns:
        The metric for each path, in the order of the tree. If two leaves share a path
        because of a slash in a key, that key is escaped: "a~1b/kernel" is the kernel
        under "a/b".

    Raises:
        TypeError: If `method` comes with `where`.
        ValueError: If `where` selects nothing, or the trees differ in structure.

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
    chosen = jax.tree.leaves(_paths.select(trees[0], where, method))
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    return {
        path: metric(*parts, where=True)
        for path, parts, selected in zip(
            _paths.distinct(trees[0]), leaves, chosen, strict=True
        )
        if selected
    }


def _selected(
    tree: Any,
    where: _paths.Where | None,
    method: _paths.Method | None,
    *,
    shipped: bool = False,
) -> list[jax.Array]:
    """The leaves that are latents, or what the method ships of them."""
    mask = _paths.select(tree, where, method)
    if shipped and method is not None:
        tree = method.deploy(tree)
    return _count.chosen(tree, mask)
