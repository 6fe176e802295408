"""The sign of a sine, with the slope of the sine.

Vargas, Correa, Hinojosa and Arguello, "BiPer: Binary Neural Networks using a Periodic
Function", CVPR 2024, https://arxiv.org/abs/2404.01278.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _linear


def biper(latent: ArrayLike, *, stage: ArrayLike, omega: ArrayLike = 20.0) -> jax.Array:
    """BiPer: maps latents t to a sine, and later to the sign of that sine.

        stage 1   w = sin(omega t)
        stage 2   w = sign(sin(omega t))

    In both stages h = omega cos(omega t) g. The shipped weights are those of stage 2,
    which have the signs of the latents only for |t| < pi / omega. Additive in g.

    Args:
        latent: Floating point, any shape.
        stage: 1 or 2, scalar. Traced values do not recompile.
        omega: Angular frequency, greater than 0; may be traced. 20 is published, for
            latents from a normal He initialiser.

    Returns:
        Weights in [-1, 1], with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `stage` is not in [1, 2], or `omega` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([-0.05, 0.0, 0.1, 0.2])
        >>> estimators.biper(latent, stage=2)
        Array([-1.,  1.,  1., -1.], dtype=float32)
    """
    _base.check_scalar("stage", stage, low=1.0, high=2.0)
    _base.check_scalar("omega", omega, open_interval=True)
    return _biper(latent, stage, omega)


def _angle(latent: jax.Array, omega: jax.Array) -> jax.Array:
    """The angle omega t; finite, for the sine of infinity is NaN."""
    edge = _numerics.largest(latent.dtype)
    return jnp.clip(omega * latent, -edge, edge)


def _weight(latent: jax.Array, stage: jax.Array, omega: jax.Array) -> jax.Array:
    sine = jnp.sin(_angle(latent, omega))
    return jnp.where(stage < 2, sine, _numerics.sign(sine))


def _slope(latent: jax.Array, stage: jax.Array, omega: jax.Array) -> jax.Array:
    del stage
    return omega * jnp.cos(_angle(latent, omega))


_biper = _linear.linear(_weight, _slope)
