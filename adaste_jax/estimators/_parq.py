"""A clip that is annealed to the scaled sign.

Jin, Ma, Liu, Gromov, Defazio and Xiao, "PARQ: Piecewise-Affine Regularized
Quantization", ICML 2025, https://arxiv.org/abs/2503.15748.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base


def parq(
    latent: ArrayLike, *, inverse_slope: ArrayLike, axis: int | None = -1
) -> jax.Array:
    """PARQ for one bit: latents, clipped ever more steeply until they are signs.

        w = clip(t / r, -a, a),   h = g,   a = mean |t| over each group

    r falls from 1 to 0 in training, as `methods.parq` does it. At r = 1 weights are
    latents, clipped at their mean magnitude: a float network is hardly changed. At
    r = 0 they are a sign(t). The map is the proximal map of a piecewise-affine
    regulariser, and r the inverse of its slope. Additive in g.

    Args:
        latent: Latents t, floating point, at least one axis unless `axis` is None.
            Computed in at least float32.
        inverse_slope: r, in [0, 1], scalar. Traced values do not recompile.
        axis: Axis of the output channels, each of which is a group (the last axis of a
            Flax kernel); None for one group.

    Returns:
        Weights in [-a, a], with the shape and dtype of `latent`. For r > 0 the weight
        of 0 is 0.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `inverse_slope` is out of range, or `latent` has no such `axis`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([0.5, -0.2, 0.3, -1.4])
        >>> estimators.parq(latent, inverse_slope=1.0, axis=None)
        Array([ 0.5, -0.2,  0.3, -0.6], dtype=float32)
        >>> estimators.parq(latent, inverse_slope=0.0, axis=None)
        Array([ 0.6, -0.6,  0.6, -0.6], dtype=float32)
    """
    _base.check_scalar("inverse_slope", inverse_slope, low=0.0, high=1.0)
    latent = _base.check_latent(latent)
    dtype = _base.compute_dtype(latent)
    latents = latent.astype(dtype)
    fixed = jax.lax.stop_gradient(latents)
    scale = _numerics.mean_magnitude(fixed, _base.group_axes(fixed, axis))
    slope = jnp.asarray(inverse_slope, dtype)
    steep = jnp.maximum(slope, _numerics.tiny(dtype).astype(dtype))
    soft = jnp.clip(fixed / steep, -scale, scale)
    weights = jnp.where(slope > 0, soft, scale * _numerics.sign(fixed))
    # Zero, with the gradient of the latents.
    return (jax.lax.stop_gradient(weights) + (latents - fixed)).astype(latent.dtype)
