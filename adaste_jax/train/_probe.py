"""What an estimator is, found out by trying it on a few numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaste_jax import _paths

Bound = Callable[[jax.Array], jax.Array]
"""An estimator whose hyperparameters are bound."""


def bound_at_start(
    estimator: Callable[..., jax.Array],
    hyperparameters: Mapping[str, optax.Schedule],
    *,
    random_weights: bool,
) -> Bound:
    """The estimator with its hyperparameters of step 0."""
    start = jnp.zeros((), jnp.int32)
    values = {name: schedule(start) for name, schedule in hyperparameters.items()}
    if random_weights:
        values["key"] = jax.random.key(0)
    return lambda latent: estimator(latent, **values)


def gives_signs(
    estimator: Bound,
    params: Any,
    where: _paths.Where | None,
) -> bool:
    """Whether its weights are +1 and -1 and nothing else."""
    latent = _latents(params, where)
    return bool(jnp.all(jnp.abs(estimator(latent)) == 1))


def is_additive(
    estimator: Bound,
    params: Any,
    where: _paths.Where | None,
) -> bool:
    """Whether its backward rule of a sum is the sum of the rules."""
    latent = _latents(params, where)
    weight, pull = jax.vjp(estimator, latent)
    rng = np.random.default_rng(1)
    one, two = (jnp.asarray(rng.normal(size=w.shape), w.dtype) for w in (weight,) * 2)
    (both,), (first,), (second,) = pull(one + two), pull(one), pull(two)
    tolerance = 16 * jnp.finfo(latent.dtype).eps
    return bool(jnp.allclose(both, first + second, rtol=tolerance, atol=tolerance))


def _latents(params: Any, where: _paths.Where | None) -> jax.Array:
    """Random latents, small and large, in the shape of the smallest kernel."""
    mask = jax.tree.leaves(_paths.select(params, where))
    leaves = jax.tree.leaves(params)
    chosen = [leaf for leaf, is_latent in zip(leaves, mask, strict=True) if is_latent]
    kernel = min(chosen, key=lambda leaf: leaf.size)
    rng = np.random.default_rng(0)
    scale = np.exp(rng.uniform(-3, 1, kernel.shape))
    return jnp.asarray(rng.normal(size=kernel.shape) * scale, kernel.dtype)
