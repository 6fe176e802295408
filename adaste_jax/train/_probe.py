"""Tests maps of latents on a few numbers, for methods that do not declare it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import methods


def gives_signs(
    weights: Callable[[Any], Any], method: methods.Method, params: Any
) -> bool:
    """Whether `weights(params)` gives only +1 and -1 for the latents."""
    where = method.where(params)
    pairs = zip(
        jax.tree.leaves(weights(_latents(params, where))),
        jax.tree.leaves(where),
        strict=True,
    )
    return all(bool(jnp.all(jnp.abs(leaf) == 1)) for leaf, latent in pairs if latent)


def is_additive(method: methods.Method, params: Any) -> bool:
    """Whether the backward rule of a sum is the sum of the rules."""
    latents = _latents(params, method.where(params))
    weights, pull = jax.vjp(lambda p: method.weights(p, 0, jax.random.key(0)), latents)
    rng = np.random.default_rng(1)
    one, two = (
        jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), weights)
        for _ in range(2)
    )
    both, first, second = (
        jax.tree.leaves(pull(grad))
        for grad in (jax.tree.map(jnp.add, one, two), one, two)
    )
    finfo: Any = jnp.finfo
    return all(
        jnp.allclose(b, f + s, rtol=(e := 16 * finfo(b.dtype).eps), atol=e)
        for b, f, s in zip(both, first, second, strict=True)
    )


def _latents(params: Any, where: Any) -> Any:
    """Parameters with few latents, which are random, small and large.

    Only the smallest latent leaf keeps its shape, since the others may be large and
    have the same rule.
    """
    chosen = jax.tree.leaves(where)
    leaves, structure = jax.tree.flatten(params)
    sizes = [leaf.size if c else np.inf for leaf, c in zip(leaves, chosen, strict=True)]
    smallest = int(np.argmin(sizes))
    rng = np.random.default_rng(0)

    def few(index: int, leaf: Any) -> Any:
        if not chosen[index]:
            return leaf
        whole = index == smallest
        shape = leaf.shape if whole else tuple(min(size, 4) for size in leaf.shape)
        scale = np.exp(rng.uniform(-3, 1, shape))
        return jnp.asarray(rng.normal(size=shape) * scale, leaf.dtype)

    return jax.tree.unflatten(
        structure, [few(i, leaf) for i, leaf in enumerate(leaves)]
    )
