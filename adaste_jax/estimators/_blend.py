"""Latents, blended with their scaled signs.

Mekkouri, Sun, von Werra and Wolf, "Fine-tuning LLMs to 1.58bit: extreme quantization
made easy", 2024, https://huggingface.co/blog/1_58_llm_extreme_quantization.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base


def blend(latent: ArrayLike, *, share: ArrayLike, axis: int | None = -1) -> jax.Array:
    """A linear blend of latents and their scaled signs.

        w = (1 - l) t + l a sign(t),   h = g,   a = mean |t| over each group

    l rises from 0 to 1 in training, as `methods.blend` does it. At 0 weights are the
    latents: a trained float network is not changed. At 1 they are a sign(t). The source
    has ternary weights; this is its rule for one bit. Additive in g.

    Args:
        latent: Latents t, floating point, at least one axis unless `axis` is None.
            Computed in at least float32.
        share: l, in [0, 1], scalar. Traced values do not recompile.
        axis: Axis of the output channels, each of which is a group (the last axis of a
            Flax kernel); None for one group.

    Returns:
        Weights of the shape and dtype of `latent`, with its signs.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `share` is out of range, or `latent` has no such `axis`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([0.5, -0.25, 0.75, -1.5])
        >>> estimators.blend(latent, share=0.5, axis=None)
        Array([ 0.625, -0.5  ,  0.75 , -1.125], dtype=float32)
    """
    _base.check_scalar("share", share, low=0.0, high=1.0)
    latent = _base.check_latent(latent)
    dtype = _base.compute_dtype(latent)
    latents = latent.astype(dtype)
    fixed = jax.lax.stop_gradient(latents)
    signs = _numerics.sign(fixed) * _numerics.mean_magnitude(
        fixed, _base.group_axes(fixed, axis)
    )
    part = jnp.asarray(share, dtype)
    weights = jnp.where(part < 1, (1 - part) * fixed + part * signs, signs)
    # Zero, with the gradient of the latents.
    return (jax.lax.stop_gradient(weights) + (latents - fixed)).astype(latent.dtype)
