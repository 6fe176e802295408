"""Ternary weights by a threshold on the magnitude.

Li, Zhang and Liu, "Ternary Weight Networks", 2016, https://arxiv.org/abs/1605.04711.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear


def ternary_twn(
    latent: ArrayLike, *, ratio: ArrayLike = 0.7, scale: bool = False
) -> jax.Array:
    """Maps latents t to 0 where |t| <= D, else to sign(t); D = `ratio` mean |t|.

    The mean is over the whole tensor. Differentiates as h = g 1[|t| <= 1], also with
    `scale`. The same weights at test. Additive in g.

    Args:
        latent: Floating point, any shape; all of it is one group.
        ratio: Threshold in units of the mean magnitude, at least 0. May be traced.
        scale: Multiplies the weights by the mean of |t| where they are not 0.

    Returns:
        Weights -1, 0 and 1 (or scaled), with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `ratio` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.ternary_twn(jnp.array([0.9, -0.1, 0.3, -0.5]), scale=True)
        Array([ 0.7,  0. ,  0. , -0.7], dtype=float32)
    """
    _base.check_scalar("ratio", ratio, low=0.0, high=float("inf"))
    return (_twn_scaled if scale else _twn)(latent, ratio)


def ternary_fixed(latent: ArrayLike, *, threshold: ArrayLike = 0.05) -> jax.Array:
    """Maps latents t to 0 where |t| < `threshold`, else to sign(t).

    The edge |t| = `threshold` gives +1 or -1. Differentiates as h = g 1[|t| <= 1]. The
    same weights at test. Additive in g.

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
    _base.check_scalar(
        "threshold", threshold, low=0.0, high=float("inf"), open_interval=True
    )
    return _fixed(latent, threshold)


def _ternary(latent, kept):
    # jnp.sign here: where it is 0 the latent is not kept.
    return jnp.where(kept, jnp.sign(latent), jnp.zeros((), latent.dtype))


def _kept(latent, ratio):
    return jnp.abs(latent) > ratio * jnp.mean(jnp.abs(latent))


def _scaled(latent, ratio):
    kept = _kept(latent, ratio)
    zero, one = jnp.zeros((), latent.dtype), jnp.ones((), latent.dtype)
    total = jnp.sum(jnp.where(kept, jnp.abs(latent), zero))
    count = jnp.maximum(jnp.sum(kept.astype(latent.dtype)), one)
    return total / count * _ternary(latent, kept)


def _slope(latent, _):
    return (jnp.abs(latent) <= 1).astype(latent.dtype)


_twn = _linear.linear(lambda t, ratio: _ternary(t, _kept(t, ratio)), _slope)
_twn_scaled = _linear.linear(_scaled, _slope)
_fixed = _linear.linear(
    lambda t, threshold: _ternary(t, jnp.abs(t) >= threshold), _slope
)
