"""AdaSTE as estimators: the recommended form, and the paper's rule.

Le, Høier, Lin and Zach, "AdaSTE: An Adaptive Straight-Through Estimator to Train
Binary Neural Networks", CVPR 2022, https://arxiv.org/abs/2112.02880.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _adaste_layer, _adaste_rule, _base
from adaste_jax.estimators._adaste_rule import Rule, Unit


def adaste(
    latent: ArrayLike, *, mu: ArrayLike, alpha: ArrayLike = 0.01, **old: Any
) -> jax.Array:
    """AdaSTE, the recommended form: annealed weights in units of the layer.

        a = |t| / rms(t),   s = min(1, (a + mu (1 + alpha)) / (1 + mu))
        w = sign(t) s / mean(s),   h = g

    The forward map s is the paper's. This library adds the unit, which is the root mean
    square of the tensor, the division by the mean and the straight-through backward
    rule: in our measurements this form works best (docs/results/adaptive_rule.md). The
    paper's own rule is `adaste_paper`. The rule of the authors' code is
    `adaste_paper(rule="released")`, for `optim.adaste_released`.

    Raise mu geometrically from 0.01 to 1 / alpha in the first 80 % of training, as
    `methods.adaste` does. Additive in g.

    Args:
        latent: Latents t, floating point, any shape. Computed in at least float32.
        mu: Annealing weight, at least 0, scalar. Traced values do not recompile.
        alpha: Margin, in (0, 1), scalar. From mu = 1 / alpha on weights are signs.
        **old: Keywords of 0.1, when this was the paper's rule. They give a warning and
            are removed in 0.3.

    Returns:
        Weights of the shape and dtype of `latent`. They have the sign of the latent,
        are never zero, and have a mean magnitude of 1. They are exactly +1 and -1 where
        mu alpha >= 1 - 1e-6 (100 times 0.01 need not be 1 in float32).

    Raises:
        TypeError: If `latent` is not floating point, or a keyword is unknown.
        ValueError: If a hyperparameter that is not traced is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([-2.0, 0.0, 2.0])
        >>> estimators.adaste(latent, mu=0.01).round(2)  # nearly in proportion
        Array([-1.49,  0.01,  1.49], dtype=float32)
        >>> estimators.adaste(latent, mu=100.0)
        Array([-1.,  1.,  1.], dtype=float32)
    """
    if old:
        return _old_adaste(latent, mu=mu, alpha=alpha, **old)
    return _weights(latent, _Form("identity", unit="rms", rescale=True), mu, alpha)


def adaste_paper(
    latent: ArrayLike,
    *,
    mu: ArrayLike,
    alpha: ArrayLike = 0.01,
    rule: Rule = "adaptive",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
) -> jax.Array:
    """AdaSTE, the paper's map and rule: w = w*(t),  h = c(t, sign g) g.

        w*(t) = sign(t) min(1, (|t| + mu (1 + alpha)) / (1 + mu))

    `adaste_slope` computes the slope c: `adaptive` and `supremum` are the paper's,
    `released` is the authors' code. On gradients of minibatches this rule is less
    accurate than the recommended form, `adaste` (docs/results/adaptive_rule.md).

    Not additive in g, except with `rule="identity"`. It is right only where it receives
    the gradient of the whole batch: one device, or `jit` over sharded arrays; no
    accumulation; each weight used once. Elsewhere use `rule="identity"` here and
    `optim.scale_by_adaste` on the averaged gradient.

    Args:
        latent: Latents t, floating point, any shape. Computed in at least float32.
        mu: Annealing weight, at least 0, scalar. Traced values do not recompile.
        alpha: Margin, in (0, 1), scalar. From mu = 1 / alpha on weights are signs.
        rule: The slope c: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`.
        cap: Largest slope toward zero, at least 0; `inf` for none.
        threshold: Gradients up to this size skip the rule. Default: 0.001 for
            `released`, none otherwise.
        axis_name: Mapped axes (`jax.pmap`, or `jax.shard_map` with `check_vma=False`)
            over which the gradient is averaged before the rule.

    Returns:
        Weights of the shape and dtype of `latent`, in [-1, 1]. They have the sign of
        the latent, are never zero, and are exactly +1 and -1 where
        mu alpha >= 1 - 1e-6.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If a hyperparameter that is not traced is out of range, if `rule` is
            unknown, or if `axis_name` is used where the gradient is already summed over
            it (`jax.shard_map` with `check_vma=True`).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([-2.0, 0.0, 3.0])
        >>> estimators.adaste_paper(latent, mu=0.5).round(3)
        Array([-1.   ,  0.337,  1.   ], dtype=float32)
        >>> jax.grad(lambda t: estimators.adaste_paper(t, mu=100.0).sum())(latent)
        Array([0. , 0.5, 0.5], dtype=float32)
    """
    return _weights(latent, _Form(rule, axis_name), mu, alpha, cap, threshold)


def _old_adaste(
    latent: ArrayLike,
    *,
    mu: ArrayLike,
    alpha: ArrayLike,
    rule: Rule = "adaptive",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    axis_name: Hashable | tuple[Hashable, ...] | None = None,
    unit: Unit | None = None,
    rescale: bool = False,
) -> jax.Array:
    """`adaste` of 0.1, with at least one of its keywords; is removed in 0.3."""
    if unit is None and not rescale:
        new = f"adaste_paper(latent, mu=mu, rule={rule!r})"
    elif rule == "identity" and unit and rescale:
        new = "adaste(latent, mu=mu)"
    else:
        new = (
            "adaste(latent, mu=mu) or adaste_paper(latent, mu=mu, rule=...); this "
            "mixture of the two has no new name: for a slope in units of the layer put "
            '`optim.scale_by_adaste(mu, unit="rms")` behind `adaste`'
        )
    warnings.warn(
        "`estimators.adaste` with `rule`, `cap`, `threshold`, `axis_name`, `unit` or "
        f"`rescale` is removed in 0.3. Write estimators.{new}.",
        DeprecationWarning,
        stacklevel=3,
    )
    form = _Form(rule, axis_name, unit, rescale)
    return _weights(latent, form, mu, alpha, cap, threshold)


class _Form(NamedTuple):
    """What is fixed when the estimator is compiled."""

    rule: Rule
    axis_name: Hashable | tuple[Hashable, ...] | None = None
    unit: Unit | None = None
    rescale: bool = False


def _weights(
    latent: ArrayLike,
    form: _Form,
    mu: ArrayLike,
    alpha: ArrayLike,
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
) -> jax.Array:
    """Checks the arguments and calls the primitive."""
    if form.axis_name is not None and not isinstance(form.axis_name, Hashable):
        raise TypeError(f"`axis_name` must be hashable, got {form.axis_name!r}.")
    hyper = _adaste_rule.check_hyperparameters(
        mu, alpha, cap, threshold, rule=form.rule, unit=form.unit
    )
    return _compiled(form, _base.check_latent(latent), hyper)


def _annealed(
    form: _Form, latent: jax.Array, hyper: _adaste_rule.Hyperparameters
) -> jax.Array:
    dtype = _base.compute_dtype(latent)
    mu, alpha = jnp.asarray(hyper.mu, dtype), jnp.asarray(hyper.alpha, dtype)
    latents = latent.astype(dtype)
    if form.unit == "rms" or form.rescale:
        unit = _numerics.scaled_rms if form.unit == "rms" else None
        weight = _adaste_layer.magnitude(
            latents, mu, alpha, unit=unit, rescale=form.rescale
        )
    else:
        weight = _adaste_rule.magnitude(latents, mu, alpha)
    # What is normal in float32 may vanish in float16.
    weight = jnp.maximum(weight, _numerics.tiny(latent.dtype).astype(dtype))
    return (_numerics.sign(latents) * weight).astype(latent.dtype)


def _residuals(
    form: _Form, latent: jax.Array, hyper: _adaste_rule.Hyperparameters
) -> Any:
    return None if form.rule == "identity" else (latent, hyper)


def _backward(form: _Form, residuals: Any, grad: jax.Array) -> tuple[jax.Array, None]:
    grad = _base.mean_over_devices(grad, form.axis_name)
    if form.rule == "identity":
        return grad, None
    latent, hyper = residuals
    moved = _adaste_rule.adaste_gradient(
        latent, grad, rule=form.rule, unit=form.unit, **hyper._asdict()
    )
    return moved, None


# Hyperparameters are ordinary arguments, so they may be traced; their cotangent is
# None, which JAX reads as zero.
_primitive = _base.with_backward(_annealed, _residuals, _backward, static=1)
# Traced and lowered once for all leaves of a shape: a sixth of the time for 72 of them.
_compiled: Callable[..., jax.Array] = jax.jit(_primitive, static_argnums=0)
