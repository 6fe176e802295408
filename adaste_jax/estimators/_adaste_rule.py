"""The mathematics of AdaSTE: its forward map and its backward rules.

Le, Høier, Lin and Zach, "AdaSTE: An Adaptive Straight-Through Estimator to Train
Binary Neural Networks", CVPR 2022, https://arxiv.org/abs/2112.02880.

The weight of a latent t is the minimiser w*(t) over [-1, 1] of the inner energy

    E(w; t) = (w - t)^2 / 2 + mu w^2 / 2 - mu (1 + alpha) |w|,

in which mu >= 0 grows during training (annealing) and alpha in (0, 1) is a small
margin. From mu = 1 / alpha on, w* is the sign. With g the gradient at w*, the backward
rule is a difference quotient of w* along the descent direction,

    h = (w*(t) - w*(t - beta g)) / beta = c g,

in which beta > 0 is chosen for each weight. The factor c is called the slope. It
depends on the sign of g, so **the rule is not additive**: the rule of a mean is not the
mean of the rules. Average over examples, devices and microbatches, and add up the uses
of a shared weight, before the rule. `estimators` and `optim` both call these functions.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base

Rule = Literal["adaptive", "supremum", "released", "identity"]
Unit = Literal["rms"]

RELEASED_THRESHOLD = 1e-3
"""Gradients up to this size skip the rule in the authors' code."""


class Hyperparameters(NamedTuple):
    """The hyperparameters of a rule; all may be traced."""

    mu: ArrayLike
    alpha: ArrayLike
    cap: ArrayLike
    threshold: ArrayLike


def adaste_forward(latent: jax.Array, *, mu: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """Minimises the inner energy.

        w*(t) = sign(t) min(1, (|t| + mu (1 + alpha)) / (1 + mu))

    The sign of 0 is +1, and a magnitude of 0 (at mu = 0) is raised to the smallest
    normal number, so that the sign of a latent can be read off its weight.

    Args:
        latent: Latents t of dtype float32 or float64, any shape.
        mu: Annealing weight, at least 0, scalar; may be traced.
        alpha: Margin, in (0, 1), scalar; may be traced.

    Returns:
        w*, of the shape and dtype of `latent`.
    """
    return _numerics.sign(latent) * magnitude(latent, mu, alpha)


def adaste_slope(
    latent: jax.Array,
    grad: jax.Array,
    *,
    mu: ArrayLike,
    alpha: ArrayLike,
    rule: Rule = "adaptive",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    away: ArrayLike | None = None,
) -> jax.Array:
    """The slope c of the backward rule h = c g, elementwise.

    Let a = |t|; k = min(1, mu (1 + alpha) / (1 + mu)); and z = 1 - mu alpha, the
    magnitude from which w* is saturated. *Toward* means that a descent step moves the
    latent toward zero, that is that g and t have the same sign. The rules are

        adaptive   t = 0         cap
                   toward        min(cap, (|w*(t)| + k) / a)
                   away, a < z   1 / (1 + mu)
                   away, a >= z  0
        supremum   as adaptive, but toward, z > 0 and a > 1 + 2 mu + mu alpha:
                                 min(cap, 2 / (a + z))
        released   what the authors' code computes, including its asymmetry in t
        identity   1

    `adaptive` takes the step beta that just moves the latent across zero; `supremum`
    takes the step with the largest slope. Both are odd, and positively homogeneous in
    g.

    Args:
        latent: Latents t (float32 or float64).
        grad: Gradients g at the weights, of the same shape and dtype.
        mu: Annealing weight, at least 0, scalar; may be traced.
        alpha: Margin, in (0, 1), scalar; may be traced.
        rule: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`.
        cap: Largest slope toward zero, which has no bound at t = 0; `inf` for no cap.
        threshold: Where |g| <= `threshold` the rule is skipped and the slope is
            1 / (1 + mu), or 1 once the weights are binary. Default: 0.001 for
            `released`, none otherwise.
        away: Slope away from zero, at least 0. Default: that of the rule, which is 0
            for saturated latents, so that they can only shrink.

    Returns:
        Slopes, at least 0, of the shape and dtype of `latent`. Where g = 0 they have no
        meaning.

    Raises:
        ValueError: If a hyperparameter is out of range, or `rule` is unknown.
    """
    hyper = check_hyperparameters(mu, alpha, cap, threshold, rule=rule)
    mu, alpha, cap, threshold = (jnp.asarray(x, latent.dtype) for x in hyper)
    if rule == "identity":
        return jnp.ones_like(latent)
    one = jnp.ones((), latent.dtype)
    soft = jnp.where(is_binary(mu, alpha), one, 1 / (1 + mu))
    slope = _RULES[rule](latent, grad, mu, alpha, cap)
    if away is not None:
        _base.check_scalar("away", away)
        keeps = _toward(latent, grad) | (latent == 0)
        slope = jnp.where(keeps, slope, jnp.asarray(away, latent.dtype))
    return jnp.where(jnp.abs(grad) <= threshold, soft, slope)


def adaste_gradient(
    latent: jax.Array,
    grad: jax.Array,
    *,
    mu: ArrayLike,
    alpha: ArrayLike,
    rule: Rule = "adaptive",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    unit: Unit | None = None,
    away: ArrayLike | None = None,
) -> jax.Array:
    """Turns the gradient at a weight into the one at its latent:  h = c g.

    Not additive in g: `grad` must be the gradient of the whole batch already.

    Args:
        latent: Latents, floating point, any shape.
        grad: Gradients at the weights, of the same shape.
        mu: Annealing weight, at least 0, scalar; may be traced.
        alpha: Margin, in (0, 1), scalar; may be traced.
        rule: The slope c: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`;
            `adaste_slope` has their formulas.
        cap: Largest slope toward zero, at least 0; `inf` for none.
        threshold: Gradients up to this size skip the rule. Default: 0.001 for
            `released`, none otherwise.
        unit: `"rms"` takes the slope at the latents divided by their root mean square
            over the tensor, and applies it to g as it is. Default: at the latents.
        away: Slope away from zero, at least 0. Default: that of the rule.

    Returns:
        h, of the shape and dtype of `latent`; 0 where g is 0.

    Raises:
        ValueError: If a hyperparameter is out of range, or `rule` or `unit` unknown.
    """
    dtype = _base.compute_dtype(latent)
    latents = latent.astype(dtype)
    grads = grad.astype(dtype)
    if unit == "rms":
        latents = latents / _numerics.root_mean_square(latents)
    slope = adaste_slope(
        latents,
        grads,
        mu=mu,
        alpha=alpha,
        rule=rule,
        cap=cap,
        threshold=threshold,
        away=away,
    )
    zero = jnp.zeros((), dtype)
    return jnp.where(grads == 0, zero, slope * grads).astype(latent.dtype)


def check_hyperparameters(
    mu: ArrayLike,
    alpha: ArrayLike,
    cap: ArrayLike,
    threshold: ArrayLike | None,
    *,
    rule: str,
    unit: str | None = None,
) -> Hyperparameters:
    """Fills in the default threshold of a rule, and refuses what is out of range.

    Raises:
        ValueError: If one is, or if `rule` or `unit` is unknown.
    """
    _base.check_choice("rule", rule, get_args(Rule))
    _base.check_choice("unit", unit, (None, *get_args(Unit)))
    if threshold is None:
        threshold = RELEASED_THRESHOLD if rule == "released" else 0.0
    _base.check_scalar("mu", mu)
    _base.check_scalar("alpha", alpha, low=0.0, high=1.0, open_interval=True)
    _base.check_scalar("cap", cap)
    _base.check_scalar("threshold", threshold)
    return Hyperparameters(mu, alpha, cap, threshold)


def is_binary(mu: jax.Array, alpha: jax.Array) -> jax.Array:
    """Whether w* is the sign of every latent, mu alpha >= 1 up to rounding."""
    return mu * alpha >= 1 - 1e-6


def _saturation(mu: jax.Array, alpha: jax.Array) -> jax.Array:
    """The magnitude of a latent from which w* is saturated: max(0, 1 - mu alpha)."""
    zero = jnp.zeros_like(mu)
    return jnp.where(is_binary(mu, alpha), zero, jnp.maximum(1 - mu * alpha, zero))


def magnitude(latent: jax.Array, mu: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """|w*(t)|, never zero."""
    mu, alpha = jnp.asarray(mu, latent.dtype), jnp.asarray(alpha, latent.dtype)
    one = jnp.ones((), latent.dtype)
    smallest = jnp.asarray(_numerics.tiny(latent.dtype), latent.dtype)
    soft = (jnp.abs(latent) + mu * (1 + alpha)) / (1 + mu)
    return jnp.where(is_binary(mu, alpha), one, jnp.clip(soft, smallest, one))


def _toward(latent: jax.Array, grad: jax.Array) -> jax.Array:
    """Whether a descent step moves a latent to zero; the product g t may underflow."""
    return (_numerics.sign(grad) == _numerics.sign(latent)) & (grad != 0)


def _divide(numerator: jax.Array, size: jax.Array) -> jax.Array:
    """`numerator / size` where size > 0; the rest is for the caller to overwrite."""
    return numerator / jnp.where(size > 0, size, jnp.ones((), size.dtype))


def _adaptive(
    latent: jax.Array, grad: jax.Array, mu: jax.Array, alpha: jax.Array, cap: jax.Array
) -> jax.Array:
    size = jnp.abs(latent)
    zero = jnp.zeros((), latent.dtype)
    one = jnp.ones((), latent.dtype)
    jump = jnp.minimum(one, mu * (1 + alpha) / (1 + mu))
    jump = jnp.where(is_binary(mu, alpha), one, jump)
    toward = jnp.minimum(cap, _divide(magnitude(latent, mu, alpha) + jump, size))
    away = jnp.where(size < _saturation(mu, alpha), 1 / (1 + mu), zero)
    slope = jnp.where(_toward(latent, grad), toward, away)
    return jnp.where(size > 0, slope, cap)


def _supremum(
    latent: jax.Array, grad: jax.Array, mu: jax.Array, alpha: jax.Array, cap: jax.Array
) -> jax.Array:
    size = jnp.abs(latent)
    saturation = _saturation(mu, alpha)
    beyond = (saturation > 0) & (size > 1 + 2 * mu + mu * alpha)
    return jnp.where(
        beyond & _toward(latent, grad),
        jnp.minimum(cap, 2 / (size + saturation)),
        _adaptive(latent, grad, mu, alpha, cap),
    )


def _released(
    latent: jax.Array, grad: jax.Array, mu: jax.Array, alpha: jax.Array, cap: jax.Array
) -> jax.Array:
    """The rule of the authors' code where |g| > 0.001; not odd, not to be mended."""
    size = jnp.abs(latent)
    toward = _toward(latent, grad)
    zero = jnp.zeros((), latent.dtype)
    one = jnp.ones((), latent.dtype)
    saturation = 1 - mu * alpha
    soft = 1 / (1 + mu)
    # Two divisions, since (1 + mu) |t| may overflow where the quotient does not.
    across = jnp.minimum(cap, _divide((1 + 2 * mu + mu * alpha) * soft, size))
    # The correct term is |t|; the authors' code has t, and is not odd for that.
    inside = jnp.clip(_divide((2 * mu * (1 + alpha) - latent) * soft, size), zero, cap)
    annealing = jnp.where(
        size > jnp.maximum(saturation, 1e-6),
        jnp.where(toward, across, zero),
        jnp.where((size > 1e-6) & (size < saturation) & toward, inside, soft),
    )
    binary = jnp.where(
        size <= 1e-3,
        one,
        jnp.where(toward, jnp.minimum(cap, _divide(one, size)), zero),
    )
    return jnp.where(is_binary(mu, alpha), binary, annealing)


_RULES = {"adaptive": _adaptive, "supremum": _supremum, "released": _released}
