"""A scaled tanh that begins at the latents and ends at their scaled signs.

Tu, Chen, Liu, Liu, Li, Hu and Wang, "Rethinking 1-bit Optimization Leveraging
Pre-trained Large Language Models", ICML 2026, https://arxiv.org/abs/2508.06974.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _linear, _tanh


def progressive(
    latent: ArrayLike, *, sharpness: ArrayLike, axis: int | None = -1
) -> jax.Array:
    """Latents that turn into scaled signs, with the derivative of the map.

        w = a tanh(s t / a) / tanh(s),   h = g s (1 - tanh^2(s t / a)) / tanh(s)

    a = mean |t| over each group, which is held constant in the derivative. s grows from
    0 in training, as `methods.progressive` does it. At s = 0 weights are the latents
    and h = g: a trained float network is not changed. As s grows they approach
    a sign(t). Without the source's second, trained scale. Additive in g.

    Args:
        latent: Latents t, floating point, at least one axis unless `axis` is None.
            Computed in at least float32.
        sharpness: s, scalar, at least 0; taken as 1e35 beyond that. Traced values do
            not recompile.
        axis: Axis of the output channels, each of which is a group (the last axis of a
            Flax kernel); None for one group.

    Returns:
        Weights of the shape and dtype of `latent`, 0 for a latent of 0.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `sharpness` is negative, or `latent` has no such `axis`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([0.5, -0.2, 0.3, -1.4])
        >>> estimators.progressive(latent, sharpness=0.0, axis=None)
        Array([ 0.5, -0.2,  0.3, -1.4], dtype=float32)
        >>> estimators.progressive(latent, sharpness=50.0, axis=None)
        Array([ 0.6, -0.6,  0.6, -0.6], dtype=float32)
    """
    _base.check_scalar("sharpness", sharpness)
    latent = _base.check_latent(latent)
    fixed = jax.lax.stop_gradient(latent).astype(_base.compute_dtype(latent))
    axes = _base.group_axes(latent, axis)
    # A power of two, so that quotients of very large and small latents are exact.
    unit = _numerics.power_unit(fixed, axes)
    scale = _numerics.mean_magnitude(fixed / unit, axes)
    return _progressive(latent, unit, scale, sharpness)


def _positive(x: jax.Array) -> jax.Array:
    """What is greater than 0, and 1 elsewhere."""
    return jnp.where(x > 0, x, jnp.ones((), x.dtype))


def _weight(
    latent: jax.Array, unit: jax.Array, scale: jax.Array, sharpness: jax.Array
) -> jax.Array:
    sharp = _positive(sharpness)
    share = _tanh.weight(latent / unit / _positive(scale), sharp) / jnp.tanh(sharp)
    soft = _numerics.from_unit(scale * share, unit)
    return jnp.where(sharpness > 0, soft, latent)


def _slope(
    latent: jax.Array, unit: jax.Array, scale: jax.Array, sharpness: jax.Array
) -> jax.Array:
    sharp = _positive(sharpness)
    steep = _tanh.slope(latent / unit / _positive(scale), sharp) / jnp.tanh(sharp)
    return jnp.where(sharpness > 0, steep, jnp.ones((), latent.dtype))


_progressive = _linear.linear(_weight, _slope)
