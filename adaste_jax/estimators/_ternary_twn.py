"""Ternary weights by a threshold on the magnitude.

Li, Zhang and Liu, "Ternary Weight Networks", 2016, https://arxiv.org/abs/1605.04711.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _linear


def ternary_twn(
    latent: ArrayLike,
    *,
    ratio: ArrayLike = 0.7,
    scale: bool = True,
    axis: int | None = None,
) -> jax.Array:
    """Maps latents t to 0 where |t| <= D, else to a sign(t); D = `ratio` mean |t|.

    a is the mean |t| of the latents not mapped to 0, as published, or 1. Means are over
    each group.
    Differentiates as h = g 1[|t| <= 1], whatever a is. The deployed weights are the
    same. Additive in g.

    Args:
        latent: Floating point, at least one axis unless `axis` is None.
        ratio: Threshold in units of the mean magnitude, at least 0. May be traced.
        scale: Whether the weights of a group are multiplied by a.
        axis: Each entry along this axis is a group; None for one group, as published.

    Returns:
        Weights -a, 0 and a, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `ratio` is negative, or `latent` has no such `axis`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.ternary_twn(jnp.array([0.9, -0.1, 0.3, -0.5]))
        Array([ 0.7,  0. ,  0. , -0.7], dtype=float32)
    """
    _base.check_scalar("ratio", ratio)
    return _twn(scale, axis)(latent, ratio)


def ternary_fixed(latent: ArrayLike, *, threshold: ArrayLike = 0.05) -> jax.Array:
    """Maps latents t to 0 where |t| < `threshold`, else to sign(t).

    The edge |t| = `threshold` gives +1 or -1. Differentiates as h = g 1[|t| <= 1]. The
    deployed weights are the same. Additive in g.

    Args:
        latent: Floating point, any shape.
        threshold: Scalar, above 0. May be traced.

    Returns:
        Weights -1, 0 and 1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `threshold` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.ternary_fixed(jnp.array([-0.05, 0.04, 0.05]))
        Array([-1.,  0.,  1.], dtype=float32)
    """
    _base.check_scalar("threshold", threshold, open_interval=True)
    return _fixed(latent, threshold)


@functools.cache
def _twn(scale: bool, axis: int | None) -> Callable[..., jax.Array]:
    def weight(latent: jax.Array, ratio: jax.Array) -> jax.Array:
        group = _base.group_axes(latent, axis)
        size = jnp.abs(latent)
        threshold = ratio * _numerics.mean_magnitude(latent, group)
        kept = size > threshold
        weights = _signs_of(latent, kept, threshold)
        if not scale:
            return weights
        zero, one = jnp.zeros((), latent.dtype), jnp.ones((), latent.dtype)
        unit = _numerics.power_unit(latent, group)
        total = jnp.sum(jnp.where(kept, size, zero) / unit, axis=group, keepdims=True)
        count = jnp.sum(kept.astype(latent.dtype), axis=group, keepdims=True)
        mean = _numerics.from_unit(total / jnp.maximum(count, one), unit)
        return mean * weights

    return _linear.linear(weight, _linear.inside)


def _signs_of(latent: jax.Array, kept: jax.Array, threshold: jax.Array) -> jax.Array:
    """Signs of those kept, else 0; and NaN where that cannot be said."""
    beyond = jnp.abs(latent) - threshold
    rest = jnp.where(beyond <= 0, jnp.zeros((), latent.dtype), beyond)
    return jnp.where(kept, _numerics.sign(latent), rest)


def _fixed_weight(latent: jax.Array, threshold: jax.Array) -> jax.Array:
    return _signs_of(latent, jnp.abs(latent) >= threshold, threshold)


_fixed = _linear.linear(_fixed_weight, _linear.inside)
