"""Ternary weights by two steps of tanh.

Three levels by mirror descent: Ajanthan, Gupta, Torr, Hartley and Dokania, "Mirror
Descent View for Neural Network Quantization", AISTATS 2021,
https://arxiv.org/abs/1910.08237.
"""

import jax
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear, _tanh


def ternary_tanh(
    latent: ArrayLike, *, beta: ArrayLike, straight_through: bool = True
) -> jax.Array:
    """Maps latents t to w = (tanh(beta (t + 1/2)) + tanh(beta (t - 1/2))) / 2.

    As beta grows, w tends to -1, 0 or 1, with steps at -1/2 and 1/2; the deployed
    weight is the nearest of the three. Additive in g.

    Args:
        latent: Floating point, any shape.
        beta: Sharpness of the steps, at least 0; may be traced.
        straight_through: If true, h = g, the stable form of mirror descent; otherwise
            h is g times the derivative of w.

    Returns:
        Weights in [-1, 1], with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `beta` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.ternary_tanh(jnp.array([-0.9, 0.1, 0.9]), beta=1e3)
        Array([-1.,  0.,  1.], dtype=float32)
    """
    _base.check_scalar("beta", beta)
    return (_straight if straight_through else _exact)(latent, beta)


def _mean_of_steps(step: _linear.Elementwise) -> _linear.Elementwise:
    return lambda t, beta: (step(t + 0.5, beta) + step(t - 0.5, beta)) / 2


_straight = _linear.straight_through(_mean_of_steps(_tanh.weight))
_exact = _linear.linear(_mean_of_steps(_tanh.weight), _mean_of_steps(_tanh.slope))
