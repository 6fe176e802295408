"""RBNN's slope, a triangle that narrows and grows.

Lin, Ji, Xu, Zhang, Wang, Wu, Huang and Lin, "Rotated Binary Neural Network", NeurIPS
2020, https://arxiv.org/abs/2009.13055. Only the slope is implemented, not the
rotation.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear


def rbnn(latent: ArrayLike, *, sharpness: ArrayLike) -> jax.Array:
    """Maps latents t to sign(t); differentiates with a triangle of slopes.

    With s = `sharpness`, the slope is max(1/s, 1) max(0, sqrt(2) s - s^2 |t|). Additive
    in g. In the published recipe s grows geometrically, once per epoch.

    Args:
        latent: Floating point, any shape.
        sharpness: s, scalar, above 0. Traced values do not recompile.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `sharpness` is not positive.

    Example:
        >>> import jax
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.rbnn(t, sharpness=1.0))(2.0)
        Array(0., dtype=float32)
    """
    _base.check_scalar("sharpness", sharpness, open_interval=True)
    return _rbnn(latent, sharpness)


def _slope(latent: jax.Array, sharpness: jax.Array) -> jax.Array:
    one, zero = jnp.ones((), latent.dtype), jnp.zeros((), latent.dtype)
    # k s = max(1, s).
    triangle = jnp.maximum(jnp.sqrt(2 * one) - sharpness * jnp.abs(latent), zero)
    return jnp.maximum(one, sharpness) * triangle


_rbnn = _linear.of_sign(_slope)
