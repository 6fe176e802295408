"""ProxQuant: real weights, pulled towards the levels after each step.

Bai, Wang and Liberty, "ProxQuant: Quantized Neural Networks via Proximal Operators",
ICLR 2019, https://arxiv.org/abs/1810.00861.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base as _checks
from adaste_jax.optim import _base

Form = Literal["l1", "squared", "ternary"]


def prox(latent: jax.Array, strength: ArrayLike, *, form: Form = "l1") -> jax.Array:
    """Minimises (x - t)^2 / 2 + strength R(x) over x, for each latent t.

        l1       sign(t) (1 + sign(|t| - 1) max(0, ||t| - 1| - strength))
        squared  (t + strength sign(t)) / (1 + strength)
        ternary  (t + strength q(t)) / (1 + strength)

    R is the distance to the nearest of +1 and -1 (`l1`), or half its square
    (`squared`). For `ternary` R is half the squared distance to q(t), which has three
    levels: with D = 0.7 mean |t| over the tensor, entries above D are replaced by their
    mean, entries below -D by theirs, the rest by 0. The sign of 0 is +1. (AdaSTE's
    forward map is the squared form with the strength mu and the target 1 + alpha.)

    Args:
        latent: Real weights t, floating point, any shape.
        strength: Scalar, at least 0. May be traced.
        form: `"l1"`, `"squared"` or `"ternary"`.

    Returns:
        An array of the shape and dtype of `latent`.

    Raises:
        ValueError: If `form` is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> optim.prox(jnp.array([-0.5, 0.0, 0.95, 2.0]), 0.25)
        Array([-0.75,  0.25,  1.  ,  1.75], dtype=float32)
    """
    _checks.check_choice("form", form, get_args(Form))
    strength = jnp.asarray(strength, latent.dtype)
    sign = _numerics.sign(latent)
    if form == "l1":
        excess = jnp.abs(latent) - 1
        kept = jnp.maximum(jnp.abs(excess) - strength, jnp.zeros((), latent.dtype))
        nearer: jax.Array = sign * (1 + _numerics.sign(excess) * kept)
        return nearer
    target = sign if form == "squared" else _ternary_levels(latent)
    unit = _numerics.power_unit(latent, ())  # of each entry, lest the sum overflow
    moved = (latent / unit + strength * (target / unit)) / (1 + strength)
    return _numerics.from_unit(moved, unit)


def apply_prox(
    strength: optax.ScalarOrSchedule, *, form: Form = "l1", clip: bool = False
) -> optax.GradientTransformation:
    """Applies the proximal map to the updated latents:  u <- prox(t + u) - t.

    Place it last in a chain.

    Args:
        strength: How far the map moves a latent, at least 0: a number or a schedule of
            the step count.
        form: The map: `"l1"`, `"squared"` or `"ternary"`; `prox` has their formulas.
        clip: Whether latents are clipped to [-1, 1] after the map.

    Returns:
        A transformation whose `update` needs `params`.

    Raises:
        ValueError: If `strength` is negative, `form` is unknown, or `update` gets no
            `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.apply_prox(0.25)
        >>> latent = jnp.array([0.5, -1.0])
        >>> update, _ = tx.update(jnp.zeros(2), tx.init(latent), latent)
        >>> latent + update
        Array([ 0.75, -1.  ], dtype=float32)
    """
    if not callable(strength):
        _checks.check_scalar("strength", strength)
    _checks.check_choice("form", form, get_args(Form))

    def mapped(update: jax.Array, latent: jax.Array, strength: Any) -> jax.Array:
        end = prox(latent + update, strength, form=form)
        return (jnp.clip(end, -1, 1) if clip else end) - latent

    return _base.leafwise("apply_prox", mapped, strength)


def proxquant(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    strength: optax.ScalarOrSchedule,
    form: Form = "l1",
    clip: bool = False,
) -> optax.GradientTransformation:
    """Adam, then the proximal map. The loss uses the real weights directly.

    Published: start from a trained real network; Adam at 0.01; the strength grows by
    1e-4 times the learning rate each epoch, linearly; after 200 of 300
    epochs (ternary: 400 of 600) the weights are replaced by their signs and frozen.
    Batch norm, biases and the convolutions of shortcuts stay real.

    Args:
        learning_rate: A number or a schedule.
        strength: How far the map moves a latent, at least 0: a number or a schedule of
            the step count.
        form: The map: `"l1"`, `"squared"` or `"ternary"`; `prox` has their formulas.
        clip: Whether latents are clipped to [-1, 1] after the map.

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: If `strength` is negative, `form` is unknown, or `update` gets no
            `params`.

    Example:
        >>> from adaste_jax import optim
        >>> strength = optim.per_epoch(lambda epoch: 1e-6 * epoch, steps_per_epoch=100)
        >>> tx = optim.proxquant(0.01, strength=strength)
    """
    return optax.chain(
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(learning_rate),
        apply_prox(strength, form=form, clip=clip),
    )


def _ternary_levels(latent: jax.Array) -> jax.Array:
    """q(t) of `prox`, in at least float32; NaN everywhere if a latent is."""
    latents = latent.astype(_checks.compute_dtype(latent))
    zero, one = jnp.zeros((), latents.dtype), jnp.ones((), latents.dtype)
    axes = tuple(range(latents.ndim))
    mean = _numerics.mean_magnitude(latents, axes).reshape(())
    unit = _numerics.power_unit(latents, axes).reshape(())
    threshold = 0.7 * mean

    def level(chosen: jax.Array) -> jax.Array:
        count = jnp.maximum(jnp.sum(chosen.astype(latents.dtype)), one)
        total = jnp.sum(jnp.where(chosen, latents, zero) / unit)
        return jnp.where(chosen, _numerics.from_unit(total / count, unit), zero)

    levels = level(latents > threshold) + level(latents < -threshold)
    return jnp.where(jnp.isnan(mean), mean, levels).astype(latent.dtype)
