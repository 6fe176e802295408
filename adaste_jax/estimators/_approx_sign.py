"""ApproxSign, the derivative of a piecewise quadratic in place of that of the sign.

Liu, Wu, Luo, Yang, Liu and Cheng, "Bi-Real Net: Enhancing the Performance of 1-bit CNNs
with Improved Representational Capability and Advanced Training Algorithm", ECCV 2018,
https://arxiv.org/abs/1808.00278.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _linear


def approx_sign(latent: ArrayLike) -> jax.Array:
    """Maps latents t to sign(t); differentiates with the slope max(0, 2 (1 - |t|)).

    Additive in g. Mostly used for binary activations. The slope is 0 at |t| = 1.

    Args:
        latent: Floating point, any shape.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.approx_sign(t).sum())(jnp.array([0.0, -0.75]))
        Array([2. , 0.5], dtype=float32)
    """
    return _approx_sign(latent)


def _slope(latent: jax.Array) -> jax.Array:
    return jnp.maximum(2 * (1 - jnp.abs(latent)), jnp.zeros((), latent.dtype))


_approx_sign = _linear.of_sign(_slope)
