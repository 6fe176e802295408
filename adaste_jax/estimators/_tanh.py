"""The tanh projection, by its own derivative and by mirror descent.

Ajanthan, Gupta, Torr, Hartley and Dokania, "Mirror Descent View for Neural Network
Quantization", AISTATS 2021, https://arxiv.org/abs/1910.08237.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear

BETA_MAX = 1e35
"""Beyond this, beta would be infinite in float32, and infinity times 0 is NaN."""


def tanh(latent: ArrayLike, *, beta: ArrayLike) -> jax.Array:
    """Squashes latents t to weights, and differentiates exactly.

        w = tanh(beta t),   h = beta (1 - w^2) g

    The deployed weights are sign(t), which w approaches as beta grows. Additive in g.

    Args:
        latent: Floating point, any shape.
        beta: Scalar, at least 0; taken as 1e35 beyond that. Traced values do not
            recompile. It grows in training.

    Returns:
        Weights in [-1, 1], 0 for a latent of 0, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `beta` is negative.

    Example:
        >>> import jax
        >>> from adaste_jax import estimators
        >>> jax.value_and_grad(lambda t: estimators.tanh(t, beta=2.0))(0.0)
        (Array(0., dtype=float32), Array(2., dtype=float32))
    """
    _base.check_scalar("beta", beta)
    return _tanh(latent, beta)


def md_tanh_s(latent: ArrayLike, *, beta: ArrayLike) -> jax.Array:
    """Maps latents t to weights tanh(beta t); differentiates straight-through:  h = g.

    Mirror descent in its stable form: the latent is the dual variable, and a gradient
    step on it with h is the mirror step. Published with Adam and latents from a Glorot
    initialiser. The direct form is `optim.md_tanh`. Additive in g.

    Args:
        latent: Floating point, any shape.
        beta: Sharpness, at least 0; may be traced.

    Returns:
        Weights in [-1, 1], with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `beta` is negative.

    Example:
        >>> import jax
        >>> from adaste_jax import estimators
        >>> jax.value_and_grad(lambda t: estimators.md_tanh_s(t, beta=50.0))(0.5)
        (Array(1., dtype=float32), Array(1., dtype=float32))
    """
    _base.check_scalar("beta", beta)
    return _md_tanh_s(latent, beta)


def weight(latent: jax.Array, beta: jax.Array) -> jax.Array:
    """The forward map, for a large beta too."""
    return jnp.tanh(jnp.clip(jnp.minimum(beta, BETA_MAX) * latent, -50, 50))


def slope(latent: jax.Array, beta: jax.Array) -> jax.Array:
    """The derivative of `weight`."""
    beta = jnp.minimum(beta, BETA_MAX)
    return beta * _linear.sech_squared(beta * latent)


_tanh = _linear.linear(weight, slope)
_md_tanh_s = _linear.straight_through(weight)
