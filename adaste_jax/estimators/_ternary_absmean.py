"""Ternary weights scaled by the mean magnitude.

Ma, Wang, Ma, Wang, Wang, Huang, Dong, Wang, Xue and Wei, "The Era of 1-bit LLMs: All
Large Language Models are in 1.58 Bits", 2024 (BitNet b1.58),
https://arxiv.org/abs/2402.17764.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear


def ternary_absmean(latent: ArrayLike, *, epsilon: ArrayLike = 1e-5) -> jax.Array:
    """Maps latents t to w = s clip(round(t / s), -1, 1), s the mean of |t|.

    s = max(mean |t|, `epsilon`) over the whole tensor; a half is rounded to even, so
    |t| = s / 2 gives 0. Differentiates straight-through, h = g, past both s and the
    rounding. The same weights at test. Additive in g.

    Args:
        latent: Floating point, any shape; all of it is one group.
        epsilon: Smallest scale, above 0. May be traced.

    Returns:
        Weights -s, 0 and s, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.ternary_absmean(jnp.array([1.0, 0.5, -0.5, 0.0]))
        Array([ 0.5,  0.5, -0.5,  0. ], dtype=float32)
    """
    _base.check_scalar(
        "epsilon", epsilon, low=0.0, high=float("inf"), open_interval=True
    )
    return _absmean(latent, epsilon)


def _weight(latent, epsilon):
    scale = jnp.maximum(jnp.mean(jnp.abs(latent)), epsilon)
    return scale * jnp.clip(jnp.round(latent / scale), -1, 1)


_absmean = _linear.linear(_weight, lambda latent, epsilon: jnp.ones_like(latent))
