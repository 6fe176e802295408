"""Fenchel back-propagation, the general contrastive rule.

Zach, "Bilevel Programs Meet Deep Learning: A Unifying View on Inference Learning
Methods", 2021, https://arxiv.org/abs/2105.07231, and, for weights, Le, Høier, Lin and
Zach, "AdaSTE", CVPR 2022, https://arxiv.org/abs/2112.02880.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base

Squash = Callable[[jax.Array], jax.Array]
"""An elementwise, differentiable function, for example `jnp.tanh`."""

SQUASHES: Mapping[str, Squash] = {"hard_tanh": jax.nn.hard_tanh, "tanh": jnp.tanh}
"""Functions that may be given by name."""


def fenbp(
    latent: ArrayLike,
    *,
    beta: ArrayLike,
    squash: Squash = jnp.tanh,
    straight_through: bool = False,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
) -> jax.Array:
    """Maps latents t to s(t), s = `squash`; differentiates by `fenbp_gradient`.

    The deployed weights are sign(t). Not additive in g: right only where it receives
    the gradient of the whole batch. Elsewhere pass `straight_through=True` and use
    `optim.scale_by_fenbp` on the averaged gradient.

    Args:
        latent: Floating point, any shape.
        beta: Step of the difference quotient, at least 0, scalar. May be traced.
        squash: The function s. Calls with the same function share one compilation.
        straight_through: Differentiates as h = g, for use with the transformation.
        axis_name: Mapped axes (`jax.pmap`, or `jax.shard_map` with `check_vma=False`)
            over which the gradient is averaged before the rule.

    Returns:
        Weights with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `beta` is negative, or the gradient is already summed over
            `axis_name`.

    Example:
        >>> import jax
        >>> from adaste_jax import estimators
        >>> s = jax.nn.hard_tanh
        >>> jax.grad(lambda t: 0.5 * estimators.fenbp(t, beta=10.0, squash=s))(3.0)
        Array(0.2, dtype=float32)
    """
    _base.check_scalar("beta", beta)
    form = (squash, straight_through, axis_name)
    return _fenbp(form, _base.check_latent(latent), beta)


def fenbp_gradient(
    latent: jax.Array,
    grad: jax.Array,
    *,
    beta: ArrayLike,
    squash: Squash = jnp.tanh,
) -> jax.Array:
    """Turns the gradient g at a weight into h = (s(t) - s(t - beta g)) / beta.

    Elementwise. Where beta |g| is so small that the difference would cancel (0.001 in
    float32, 5e-8 in float64) it is the limit s'(t) g. Not additive in g: `grad` must be
    the gradient of the whole batch already.

    Args:
        latent: Latents t, floating point, any shape.
        grad: Gradients g at the weights, of the same shape.
        beta: Step of the difference quotient, at least 0, scalar; may be traced.
        squash: s, an elementwise, differentiable function.

    Returns:
        h, of the shape and dtype of `latent`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent, grad = jnp.array([0.5, 3.0]), jnp.array([0.5, 0.5])
        >>> estimators.fenbp_gradient(latent, grad, beta=2.0, squash=jax.nn.hard_tanh)
        Array([0.5, 0. ], dtype=float32)
    """
    dtype = _base.compute_dtype(latent)
    latents, grads = latent.astype(dtype), grad.astype(dtype)
    step = jnp.asarray(beta, dtype) * grads
    value, derivative = jax.jvp(squash, (latents,), (jnp.ones_like(latents),))
    large = jnp.abs(step) > 3 * jnp.sqrt(_numerics.epsilon(dtype))
    difference = value - squash(latents - step)
    ratio = difference / jnp.where(large, step, jnp.ones((), dtype))
    return (jnp.where(large, ratio, derivative) * grads).astype(latent.dtype)


_Form: TypeAlias = tuple[Squash, bool, Hashable | tuple[Hashable, ...] | None]


def _squashed(form: _Form, latent: jax.Array, beta: ArrayLike) -> jax.Array:
    del beta
    squash, *_ = form
    return squash(latent.astype(_base.compute_dtype(latent))).astype(latent.dtype)


def _backward(
    form: _Form, residuals: tuple[jax.Array, ArrayLike], grad: jax.Array
) -> tuple[jax.Array, None]:
    squash, straight_through, axis_name = form
    latent, beta = residuals
    grad = _base.mean_over_devices(grad, axis_name)
    if straight_through:
        return grad, None
    return fenbp_gradient(latent, grad, beta=beta, squash=squash), None


_fenbp = _base.with_backward(
    _squashed, lambda form, *arrays: arrays, _backward, static=1
)
