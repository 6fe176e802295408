"""IR-Net: the error decay estimator, and weights standardised before the sign.

Qin, Gong, Liu, Shen, Wei, Yu and Song, "Forward and Backward Information Retention for
Accurate Binary Neural Networks", CVPR 2020, https://arxiv.org/abs/1909.10788.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _linear


def ede(latent: ArrayLike, *, sharpness: ArrayLike) -> jax.Array:
    """Maps latents t to sign(t); differentiates as k tanh(s t), s = `sharpness`.

    The slope is k s (1 - tanh^2(s t)) with k = max(1/s, 1): the identity for small s,
    a narrow peak at 0 for large s. Additive in g. In the published recipe s grows
    geometrically from 0.1 to 10, once per epoch.

    Args:
        latent: Floating point, any shape.
        sharpness: s, scalar, at least 0. Traced values do not recompile.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `sharpness` is negative.

    Example:
        >>> import jax
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.ede(t, sharpness=10.0))(0.0)
        Array(10., dtype=float32)
    """
    _base.check_scalar("sharpness", sharpness)
    return _ede(latent, sharpness)


def irnet_weight(
    latent: ArrayLike, *, sharpness: ArrayLike, axis: int | None = -1
) -> jax.Array:
    """Standardises latents, takes the sign, and scales by a power of two.

    Over each group of n latents t,

        z = (t - mean) / std    with n - 1 in the standard deviation
        w = s sign(z)           with s = 2^round(log2(mean |z|)), no gradient through s,

    The backward rule is `ede` at z, then the exact derivative of z. So the gradients of
    a group sum to 0, and w does not change when t is scaled or shifted. Additive in g.

    Args:
        latent: Floating point, at least one axis unless `axis` is None.
        sharpness: s of `ede` at z, at least 0; may be traced.
        axis: Axis of the output channels, each of which is a group (the last axis of a
            Flax kernel); None for one group.

    Returns:
        Weights s and -s, with the shape and dtype of `latent`; +1 in a group of equal
        latents.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `sharpness` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([[0.4], [-0.2], [0.1], [0.9]])
        >>> estimators.irnet_weight(latent, sharpness=1.0)[:, 0]
        Array([ 1., -1., -1.,  1.], dtype=float32)
    """
    latent = _base.check_latent(latent)
    latents = latent.astype(_base.compute_dtype(latent))
    group = _base.group_axes(latents, axis)
    z = _standardise(latents, group)
    size = _numerics.mean_magnitude(z, group)
    scale = jax.lax.stop_gradient(power_of_two(size))
    weight: jax.Array = scale * ede(z, sharpness=sharpness)
    return weight.astype(latent.dtype)


def _standardise(latent: jax.Array, group: tuple[int, ...]) -> jax.Array:
    one = jnp.ones((), latent.dtype)
    # z does not depend on the unit; with this one, squares neither overflow nor vanish.
    unit = jnp.max(jnp.abs(latent), axis=group, keepdims=True, initial=0)
    latent = latent / jax.lax.stop_gradient(jnp.where(unit > 0, unit, one))
    if not latent.size:
        return latent
    count = latent.size // unit.size
    centred = latent - jnp.mean(latent, axis=group, keepdims=True)
    squares = jnp.sum(jnp.square(centred), axis=group, keepdims=True)
    variance = squares / max(count - 1, 1)
    return centred / jnp.sqrt(jnp.where(variance > 0, variance, one))


def power_of_two(size: jax.Array) -> jax.Array:
    """The power of two nearest to each size, in the logarithm; 1 for a size of 0."""
    one = jnp.ones((), size.dtype)
    return jnp.exp2(jnp.round(jnp.log2(jnp.where(size > 0, size, one))))


def _slope(latent: jax.Array, sharpness: jax.Array) -> jax.Array:
    one = jnp.ones((), latent.dtype)
    # k s = max(1, s).
    return jnp.maximum(one, sharpness) * _linear.sech_squared(sharpness * latent)


_ede = _linear.of_sign(_slope)
