"""The shares of a step of training: before the update, and after it.

Of the latents before the update a bit each is kept, so that the update can be written
in their place.
"""

from typing import Any

import jax
import jax.numpy as jnp

from adaste_jax import _numerics, _paths
from adaste_jax.metrics._count import count

NAMES = ("flip_rate", "saturated", "zero_gradient")
"""What a step reports of its latents."""

Before = tuple[list[jax.Array], jax.Array]
"""Signs of the leaves, and the saturated share."""


def before(params: Any, weights: Any, method: _paths.Method) -> Before:
    """What is measured before the update.

    Args:
        params: Latents.
        weights: What the network sees.
        method: How the network is trained.
    """
    where = method.where(params)
    signs = [_signs(leaf) for leaf in _chosen(method.deploy(params), where)]
    chosen = _chosen(weights, where)
    return signs, _share([_saturated(leaf) for leaf in chosen], chosen)


def after(
    before: Before, params: Any, grads: Any, method: _paths.Method
) -> dict[str, jax.Array]:
    """`flip_rate`, `saturated_share` and `zero_share`; NaN where one of them is NaN.

    Args:
        before: What `before` gave.
        params: Latents after the update.
        grads: Gradients of the latents.
        method: How the network is trained.

    Returns:
        The shares under `NAMES`.
    """
    where = method.where(params)
    signs, saturated = before
    shipped = _chosen(method.deploy(params), where)
    flips = [_flips(*pair) for pair in zip(signs, shipped, strict=True)]
    zeros = [count(g == 0, jnp.isnan(g)) for g in _chosen(grads, where)]
    shares = (_share(flips, shipped), saturated, _share(zeros, shipped))
    return dict(zip(NAMES, shares, strict=True))


def _chosen(tree: Any, where: Any) -> list[jax.Array]:
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(where), strict=True)
    return [leaf for leaf, chosen in pairs if chosen]


def _share(counts: list[jax.Array], leaves: list[jax.Array]) -> jax.Array:
    size = sum(leaf.size for leaf in leaves)
    return sum(counts, jnp.zeros(())) / max(size, 1)


def _signs(leaf: jax.Array) -> jax.Array:
    """Signs as bits, or as booleans where bits would have to be gathered."""
    positive = _numerics.sign(leaf) > 0
    if jax.device_count() > 1 or not leaf.size:
        return positive
    return jnp.packbits(positive.ravel())


def _flips(signs: jax.Array, leaf: jax.Array) -> jax.Array:
    """How many signs are others now."""
    changed, lost = signs ^ _signs(leaf), jnp.isnan(leaf)
    if changed.dtype != bool:
        changed = jax.lax.population_count(changed)
        lost = jnp.packbits(lost.ravel()) > 0
    return jnp.sum(jnp.where(lost, jnp.nan, changed.astype(jnp.float32)))


def _saturated(leaf: jax.Array) -> jax.Array:
    """How many entries have the largest magnitude of their leaf, to 1e-6."""
    edge = (1 - 1e-6) * jnp.max(jnp.abs(leaf), initial=0)
    # No second use of the magnitudes, which XLA would write out for both.
    return count((leaf >= edge) | (leaf <= -edge), jnp.isnan(leaf))
