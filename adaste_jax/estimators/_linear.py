"""Makes estimators whose backward rule is a slope: h = slope(t) g, additive in g."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base

Elementwise = Callable[..., jax.Array]
"""From latents, and hyperparameters as arrays of the same dtype, to an array of the
shape and dtype of the latents."""


def linear(weight: Elementwise, slope: Elementwise) -> Callable[..., jax.Array]:
    """Joins a forward map and a slope.

    Args:
        weight: `weight(latent, *hyper)`, the forward map.
        slope: `slope(latent, *hyper)`, the factor of g in the backward rule.

    Returns:
        A function of a latent, which it checks, and of real hyperparameters. These may
        be traced and get no gradient. Both maps are computed in at least float32.
    """

    def primal(latent: jax.Array, hyper: tuple[ArrayLike, ...]) -> jax.Array:
        return weight(*_computed(latent, hyper)).astype(latent.dtype)

    def slopes_of(latent: jax.Array, hyper: tuple[ArrayLike, ...]) -> jax.Array:
        return slope(*_computed(latent, hyper))

    def backward(slopes: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
        product = (slopes * grad.astype(slopes.dtype)).astype(grad.dtype)
        # XLA makes a choice of a product with 0 and 1, and so drops NaN at slope 0.
        return jnp.where(jnp.isnan(grad), grad, product), None

    primitive = _base.with_backward(primal, slopes_of, backward)
    return lambda latent, *hyper: primitive(_base.check_latent(latent), hyper)


def of_sign(slope: Elementwise) -> Callable[..., jax.Array]:
    """`linear` with the sign as the forward map."""
    return linear(lambda latent, *_: _numerics.sign(latent), slope)


def straight_through(weight: Elementwise) -> Callable[..., jax.Array]:
    """`linear` with the identity as the backward rule:  h = g."""
    return linear(weight, lambda latent, *_: jnp.ones_like(latent))


def _computed(latent: jax.Array, hyper: tuple[ArrayLike, ...]) -> tuple[jax.Array, ...]:
    dtype = _base.compute_dtype(latent)
    return latent.astype(dtype), *(jnp.asarray(value, dtype) for value in hyper)


def inside(latent: jax.Array, *_: jax.Array) -> jax.Array:
    """The slope of hard tanh: 1 where |t| <= 1, else 0."""
    return (jnp.abs(latent) <= 1).astype(latent.dtype)


def sech_squared(x: jax.Array) -> jax.Array:
    """1 / cosh^2, the derivative of tanh: without overflow, and without 1 - tanh^2."""
    decay = jnp.exp(-2 * jnp.abs(x))
    return 4 * decay / jnp.square(1 + decay)
