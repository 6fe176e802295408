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
    scale = _numerics.mean_magnitude(fixed, _base.group_axes(latent, axis))
    return _progressive(latent, scale, sharpness)


def _in_units(
    latent: jax.Array, scale: jax.Array, sharpness: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Latents in units of the scale, and a sharpness that is not 0."""
    one = jnp.ones((), latent.dtype)
    return latent / jnp.where(scale > 0, scale, one), jnp.where(
        sharpness > 0, sharpness, one
    )


def _weight(latent: jax.Array, scale: jax.Array, sharpness: jax.Array) -> jax.Array:
    units, sharp = _in_units(latent, scale, sharpness)
    soft = scale * (_tanh.weight(units, sharp) / jnp.tanh(sharp))
    return jnp.where(sharpness > 0, soft, latent)


def _slope(latent: jax.Array, scale: jax.Array, sharpness: jax.Array) -> jax.Array:
    units, sharp = _in_units(latent, scale, sharpness)
    steep = _tanh.slope(units, sharp) / jnp.tanh(sharp)
    return jnp.where(sharpness > 0, steep, jnp.ones((), latent.dtype))


_progressive = _linear.linear(_weight, _slope)
