"""Ternary weights scaled by the mean magnitude.

Ma, Wang, Ma, Wang, Wang, Huang, Dong, Wang, Xue and Wei, "The Era of 1-bit LLMs: All
Large Language Models are in 1.58 Bits", 2024 (BitNet b1.58),
https://arxiv.org/abs/2402.17764.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _linear


def ternary_absmean(
    latent: ArrayLike, *, epsilon: ArrayLike = 1e-5, axis: int | None = None
) -> jax.Array:
    """Maps latents t to w = s clip(round(t / s), -1, 1), s the mean of |t|.

    s = max(mean |t|, `epsilon`) over each group; a half is rounded to even, so
    |t| = s / 2 gives 0. Differentiates straight-through, h = g, past both s and the
    rounding. The deployed weights are the same. Additive in g.

    Args:
        latent: Floating point, at least one axis unless `axis` is None.
        epsilon: Smallest scale, above 0. May be traced.
        axis: Each entry along this axis is a group; None for one group, as published.

    Returns:
        Weights -s, 0 and s, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `epsilon` is not positive, or `latent` has no such `axis`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.ternary_absmean(jnp.array([1.0, 0.5, -0.5, 0.0]))
        Array([ 0.5,  0.5, -0.5,  0. ], dtype=float32)
    """
    _base.check_scalar("epsilon", epsilon, open_interval=True)
    return _absmean(axis)(latent, epsilon)


@functools.cache
def _absmean(axis: int | None) -> Callable[..., jax.Array]:
    def weight(latent: jax.Array, epsilon: jax.Array) -> jax.Array:
        group = _base.group_axes(latent, axis)
        scale = jnp.maximum(_numerics.mean_magnitude(latent, group), epsilon)
        return scale * jnp.clip(jnp.round(latent / scale), -1, 1)

    return _linear.straight_through(weight)
