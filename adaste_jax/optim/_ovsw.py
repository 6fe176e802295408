"""OvSW: larger gradients, and a decay of latents that never change their sign.

Xiang, Chen, Li, Wu and Liu, "OvSW: Overcoming Silent Weights for Accurate Binary Neural
Networks", ECCV 2024, https://arxiv.org/abs/2407.05257.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base


class OvswState(NamedTuple):
    """The signs of the last step, and the moving rate f of flips of each latent."""

    positive: Any  # as the params, bool
    flips: Any  # as the params, at least float32


def scale_by_ovsw(
    delta: ArrayLike = 0.04,
    *,
    decay: ArrayLike = 9e-4,
    momentum: ArrayLike = 0.999,
    threshold: ArrayLike = 1e-4,
) -> optax.GradientTransformationExtraArgs:
    """Helps signs to flip: adaptive gradient scaling, then silence awareness decaying.

        g <- g delta |t| / |g|     where |g| < delta |t|, norms of an output channel
        f <- k f + (1 - k) [the sign of t has changed since the last step]
        g <- g + decay t           where f < threshold: t is silent

    Norms are at least |t| = 1e-3 and |g| = 1e-6. The channels are the last axis of a
    kernel. Place it first in a chain: it takes the gradient that is averaged over the
    whole batch, at the latents. Adam divides much of the first line out, so the source
    has SGD with momentum 0.9 and a cosine from 0.1. Its delta is 0.04 on CIFAR-10
    (decay 9e-4) and 0.01 on ImageNet (decay 2e-5), besides weight decay.

    Args:
        delta: Least norm of a gradient, relative to that of its latents; at least 0.
        decay: Pull of silent latents towards 0, at least 0.
        momentum: k, in [0, 1].
        threshold: Latents whose rate of flips is below it are silent; at least 0.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        ValueError: If a number is out of range, or `update` gets no `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.scale_by_ovsw(0.1, decay=0.0)
        >>> latent, grad = jnp.array([[3.0], [4.0]]), jnp.array([[0.0], [0.01]])
        >>> tx.update(grad, tx.init(latent), latent)[0]  # a norm of 0.1 * 5
        Array([[0. ],
               [0.5]], dtype=float32)
    """
    for name, value in (("delta", delta), ("decay", decay), ("threshold", threshold)):
        _checks.check_scalar(name, value)
    _checks.check_scalar("momentum", momentum, high=1.0)

    def init(params: Any) -> OvswState:
        zeros = lambda latent: jnp.zeros(latent.shape, _checks.compute_dtype(latent))
        return OvswState(
            jax.tree.map(_base.positive, params), jax.tree.map(zeros, params)
        )

    def update(
        updates: Any, state: OvswState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, OvswState]:
        del extra_args
        _base.check_params("scale_by_ovsw", params)
        positive = jax.tree.map(_base.positive, params)
        flips = jax.tree.map(
            lambda f, now, before: _base.averaged(now != before, f, 1 - momentum),
            state.flips,
            positive,
            state.positive,
        )
        scaled = functools.partial(
            _scaled, delta=delta, decay=decay, threshold=threshold
        )
        return jax.tree.map(scaled, updates, params, flips), OvswState(positive, flips)

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(
    grad: jax.Array, latent: jax.Array, flips: jax.Array, **numbers: ArrayLike
) -> jax.Array:
    """The gradient of one leaf, scaled and with the decay."""
    dtype = flips.dtype
    delta, decay, threshold = (
        jnp.asarray(numbers[name], dtype) for name in ("delta", "decay", "threshold")
    )
    g, t = grad.astype(dtype), latent.astype(dtype)
    axes = _checks.group_axes(latent, -1 if latent.ndim else None)
    size = jnp.maximum(_norm(g, axes), jnp.asarray(1e-6, dtype))
    wanted = delta * jnp.maximum(_norm(t, axes), jnp.asarray(1e-3, dtype))
    factor = jnp.where(size < wanted, wanted / size, jnp.ones((), dtype))
    pull = jnp.where(flips < threshold, decay * t, jnp.zeros((), dtype))
    return (factor * g + pull).astype(grad.dtype)


def _norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The Euclidean norm over axes, which are kept; finite squares."""
    unit = _numerics.power_unit(x, axes)
    total = jnp.sum(jnp.square(x / unit), axis=axes, keepdims=True)
    return _numerics.from_unit(jnp.sqrt(total), unit)
