"""Makes estimators whose backward rule is a slope: h = slope(t) g, additive in g."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base

Elementwise = Callable[..., jax.Array]
"""From latents, and hyperparameters as arrays of the same dtype, to an array of the
shape and dtype of the latents."""


def linear(weight: Elementwise, slope: Elementwise) -> Callable[..., jax.Array]:
    """Joins a forward map and a slope.

    Args:
        weight: `weight(latent, *hyper)`, the forward map.
        slope: `slope(latent, *hyper)`, what multiplies g in the backward rule.

    Returns:
        A function of a latent, which it checks, and of real hyperparameters, which may
        be traced and get no gradient. Both maps are computed in at least float32.
    """

    @jax.custom_vjp
    def primitive(latent: jax.Array, hyper: tuple[ArrayLike, ...]) -> jax.Array:
        return weight(*_computed(latent, hyper)).astype(latent.dtype)

    def forward(latent, hyper):
        return primitive(latent, hyper), slope(*_computed(latent, hyper))

    def backward(slopes, grad):
        product = (slopes * grad.astype(slopes.dtype)).astype(grad.dtype)
        # XLA makes a choice of a product with 0 and 1, and so drops NaN at slope 0.
        return jnp.where(jnp.isnan(grad), grad, product), None

    primitive.defvjp(forward, backward)
    return lambda latent, *hyper: primitive(_base.check_latent(latent), hyper)


def _computed(latent, hyper):
    dtype = _base.compute_dtype(latent)
    return latent.astype(dtype), *(jnp.asarray(value, dtype) for value in hyper)


def sech_squared(x: jax.Array) -> jax.Array:
    """1 / cosh^2, the derivative of tanh: without overflow, and without 1 - tanh^2."""
    decay = jnp.exp(-2 * jnp.abs(x))
    return 4 * decay / jnp.square(1 + decay)
