"""What a method does to a few numbers, where it does not say so itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaste_jax import methods


def gives_signs(method: methods.Method, params: Any) -> bool:
    """Whether weights, at step 0, and what is shipped in a step are all +1 and -1."""
    where = method.where(params)
    latents = _latents(params, where)
    trees = [method.weights(latents, 0, jax.random.key(0))]
    if method.deployed_pass:
        trees.append(method.deploy(latents))
    return all(
        bool(jnp.all(jnp.abs(leaf) == 1))
        for tree in trees
        for leaf, is_latent in zip(
            jax.tree.leaves(tree), jax.tree.leaves(where), strict=True
        )
        if is_latent
    )


def is_additive(method: methods.Method, params: Any) -> bool:
    """Whether its backward rule of a sum is the sum of the rules."""
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
    return all(
        jnp.allclose(b, f + s, rtol=(e := 16 * jnp.finfo(b.dtype).eps), atol=e)
        for b, f, s in zip(both, first, second, strict=True)
    )


def _latents(params: Any, where: Any) -> Any:
    """Parameters whose latents are random, small and large, and few.

    Only the smallest latent leaf keeps its shape: the others may be large, and their
    rule is the same.
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
