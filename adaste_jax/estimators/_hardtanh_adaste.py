"""AdaSTE without an inner energy: the contrastive rule of hard tanh.

A later variant by an author of Le, Høier, Lin and Zach, "AdaSTE: An Adaptive
Straight-Through Estimator to Train Binary Neural Networks", CVPR 2022,
https://arxiv.org/abs/2112.02880.
"""

from collections.abc import Hashable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base


def hardtanh_adaste(
    latent: ArrayLike,
    *,
    straight_through: bool = False,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
) -> jax.Array:
    """Maps latents t to clip(t, -1, 1); differentiates by `hardtanh_adaste_gradient`.

    The deployed weights are sign(t). Not additive in g: right only where it receives
    the gradient of the whole batch. Elsewhere pass `straight_through=True` and use
    `optim.scale_by_hardtanh_adaste` on the averaged gradient.

    Args:
        latent: Floating point, any shape.
        straight_through: Differentiates as h = g, for use with the transformation.
        axis_name: Mapped axes (`jax.pmap`, or `jax.shard_map` with `check_vma=False`)
            over which the gradient is averaged before the rule.

    Returns:
        Weights in [-1, 1], 0 for a latent of 0, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If the gradient is already summed over `axis_name`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.hardtanh_adaste(t).sum())(
        ...     jnp.array([0.5, 3.0, -3.0]))
        Array([1. , 0.5, 0. ], dtype=float32)
    """
    return _hardtanh((straight_through, axis_name), _base.check_latent(latent))


def hardtanh_adaste_gradient(latent: jax.Array, grad: jax.Array) -> jax.Array:
    """Turns the gradient g at a weight into h at its latent t, elementwise.

        |t| < 1                                  h = g
        |t| >= 1, g and t of one sign            h = 2 g / (1 + |t|)
        |t| >= 1, otherwise                      h = 0

    This is the difference quotient of hard tanh along -g, over a step of |t| + 1. Not
    additive in g: `grad` must be the gradient of the whole batch already.

    Args:
        latent: Latents, floating point, any shape.
        grad: Gradients at the weights, of the same shape.

    Returns:
        h, of the shape and dtype of `latent`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([0.5, 3.0, -3.0])
        >>> estimators.hardtanh_adaste_gradient(latent, jnp.full(3, 0.5))
        Array([0.5 , 0.25, 0.  ], dtype=float32)
    """
    dtype = _base.compute_dtype(latent)
    latents, grads = latent.astype(dtype), grad.astype(dtype)
    size = jnp.abs(latents)
    toward = _numerics.sign(grads) == _numerics.sign(latents)
    outside = jnp.where(toward, 2 / (1 + size), jnp.zeros((), dtype))
    slope = jnp.where(size < 1, jnp.ones((), dtype), outside)
    return (slope * grads).astype(latent.dtype)


_Form: TypeAlias = tuple[bool, Hashable | tuple[Hashable, ...] | None]


def _clipped(form: _Form, latent: jax.Array) -> jax.Array:
    del form
    return jnp.clip(latent, -1, 1)


def _backward(form: _Form, latent: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    straight_through, axis_name = form
    grad = _base.mean_over_devices(grad, axis_name)
    return (grad if straight_through else hardtanh_adaste_gradient(latent, grad),)


_hardtanh = _base.with_backward(
    _clipped, lambda form, latent: latent, _backward, static=1
)
