"""VISPA: signs of correlated Gaussians of low rank.

Orecchia, Hu, He, Mark, Yang, Wu and Geng, "Training Binary Neural Networks via Gaussian
Variational Inference and Low-Rank Semidefinite Programming", NeurIPS 2024,
https://openreview.net/forum?id=cIXETwTkhK.

A weight has 1 + K latents, its mean m and its factors z_1, ..., z_K, on the last axis.
The update is `optim.vispa`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base


def vispa_sample(latent: ArrayLike, *, key: jax.Array) -> jax.Array:
    """Draws w = sign(m + <z, r>), r normal with K entries, the same for all weights.

    Differentiates straight-through: h = g for m and h = g r for z. So weights of one
    tensor are correlated through r, and each is +1 with probability
    `vispa_probability`. In evaluation outputs are averaged over draws (40 published),
    or weights are sign(m). Additive in g.

    Args:
        latent: Floating point, shape `[..., 1 + K]`. Published: K = 8, m a Glorot
            normal draw, and z another one divided by 10.
        key: PRNG key of r, which is drawn once per call: use a new key for each leaf
            and each forward pass (`adaste_jax.binarize(..., key=key)` gives each leaf
            its own).

    Returns:
        Weights +1 and -1, of shape `[...]` and the dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If its last axis has fewer than two entries.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([[9.0, 0.1, -0.1], [-9.0, 0.1, 0.2]])
        >>> estimators.vispa_sample(latent, key=jax.random.key(0))
        Array([ 1., -1.], dtype=float32)
    """
    latent = _mean_and_factors(latent)
    draw = jax.random.normal(key, (latent.shape[-1] - 1,), jnp.float32)
    return _sign_of_product(latent, draw)


def vispa_probability(latent: ArrayLike) -> jax.Array:
    """The probability that a weight is +1:  Phi(m / |z|).

    Args:
        latent: Means m and factors z in the last axis, of shape `[..., 1 + K]`.

    Returns:
        Probabilities, of shape `[...]` and the dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If its last axis has fewer than two entries.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([[0.0, 0.6, 0.8], [1.0, 0.6, 0.8]])
        >>> estimators.vispa_probability(latent).round(3)
        Array([0.5  , 0.841], dtype=float32)
    """
    latent = _mean_and_factors(latent)
    latent = latent / _numerics.power_unit(latent, (-1,))
    deviation = jnp.linalg.norm(latent[..., 1:], axis=-1)
    return jax.scipy.stats.norm.cdf(latent[..., 0] / deviation)


def _mean_and_factors(latent: ArrayLike) -> jax.Array:
    array = _base.check_latent(latent)
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ValueError(
            "the last axis of the latents must have a mean and at least one factor, "
            f"got the shape {array.shape}."
        )
    return array


def _mixed_sign(latent: jax.Array, draw: jax.Array) -> jax.Array:
    latents = latent.astype(_base.compute_dtype(latent))
    latents = latents / _numerics.power_unit(latents, (-1,))
    mixed = latents[..., 0] + latents[..., 1:] @ draw.astype(latents.dtype)
    return _numerics.sign(mixed).astype(latent.dtype)


def _backward(draw: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
    with_mean = jnp.concatenate([jnp.ones((1,), draw.dtype), draw])
    spread = jnp.tensordot(grad.astype(draw.dtype), with_mean, axes=0)
    return spread.astype(grad.dtype), None


_sign_of_product = _base.with_backward(
    _mixed_sign, lambda latent, draw: draw, _backward
)
