"""SwishSign, the derivative of a scaled swish in place of that of the sign.

Darabi, Belbahri, Courbariaux and Nia, "Regularized Binary Network Training", 2018
(BNN+), https://arxiv.org/abs/1812.11800.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear


def swish_sign(latent: ArrayLike, *, beta: ArrayLike = 5.0) -> jax.Array:
    """Maps latents t to sign(t); differentiates with the slope of a scaled swish.

    With b = `beta`, the slope is

        b (2 - b t tanh(b t / 2)) / (1 + cosh(b t)):

    The slope is b at 0 and, by design, negative for large |t|. Additive in g.

    Args:
        latent: Floating point, any shape.
        beta: Scalar, at least 0. May be traced.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `beta` is negative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> jax.grad(estimators.swish_sign)(0.0)
        Array(5., dtype=float32)
    """
    _base.check_scalar("beta", beta)
    return _swish_sign(latent, beta)


def _slope(latent: jax.Array, beta: jax.Array) -> jax.Array:
    # Beyond 1000 the slope is 0 in every precision; a finite x keeps 0 x from NaN.
    x = jnp.clip(beta * latent, -1e3, 1e3)
    return beta * (2 - x * jnp.tanh(x / 2)) * _linear.sech_squared(x / 2) / 2


_swish_sign = _linear.of_sign(_slope)
