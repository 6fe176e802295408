"""ReSTE, the rectified straight-through estimator.

Wu, Zheng, Liu and Zheng, "Estimator Meets Equilibrium Perspective: A Rectified Straight
Through Estimator for Binary Neural Networks Training", ICCV 2023,
https://arxiv.org/abs/2308.06689.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear


def reste(
    latent: ArrayLike,
    *,
    exponent: ArrayLike,
    cut: ArrayLike = 1.5,
    floor: ArrayLike = 0.1,
) -> jax.Array:
    """Maps latents t to sign(t); differentiates as sign(t) |t|^(1/o), o = `exponent`.

    The slope is

        0                        for |t| > cut
        |t|^((1 - o) / o) / o    for floor < |t| <= cut
        floor^(1/o) / floor      for |t| <= floor.

    o = 1 is `ste_clipped` with the threshold `cut`. Additive in g. In the published
    pipeline o grows from 1 to 3 (`methods.reste`), and the weights are scaled by
    the mean of |t| over the tensor: `scaled_sign(latent, axis=None, scale_grad="exact",
    estimator=functools.partial(reste, exponent=o))`.

    Args:
        latent: Floating point, any shape.
        exponent: o, scalar, at least 1. Traced values do not recompile.
        cut: Largest |t| that gets a gradient; scalar, may be traced.
        floor: |t| up to which the slope is constant, above 0; scalar, may be traced.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If a hyperparameter that is not traced is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.reste(t, exponent=2.0).sum())(
        ...     jnp.array([0.25, -1.0, 2.0]))
        Array([1. , 0.5, 0. ], dtype=float32)
    """
    _base.check_scalar("exponent", exponent, low=1.0)
    _base.check_scalar("cut", cut)
    _base.check_scalar("floor", floor, open_interval=True)
    return _reste(latent, exponent, cut, floor)


def _slope(
    latent: jax.Array, exponent: jax.Array, cut: jax.Array, floor: jax.Array
) -> jax.Array:
    size = jnp.abs(latent)
    power = jnp.maximum(size, floor) ** ((1 - exponent) / exponent) / exponent
    slope = jnp.where(size > floor, power, floor ** (1 / exponent) / floor)
    return jnp.where(size > cut, jnp.zeros((), latent.dtype), slope)


_reste = _linear.of_sign(_slope)
