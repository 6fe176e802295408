"""AdaSTE as Optax gradient transformations. Latents are the `params`.

Le, Høier, Lin and Zach, CVPR 2022, https://arxiv.org/abs/2112.02880. The mathematics
is in `adaste_jax.estimators`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adaste_jax.estimators import _adaste
from adaste_jax.optim import _base


class ScaleByAdasteState(NamedTuple):
    """Counts steps, so that `mu` may be a schedule."""

    step: jax.Array  # shape=(), dtype=int32


def scale_by_adaste(
    mu: optax.ScalarOrSchedule,
    *,
    alpha: ArrayLike = 0.01,
    rule: _adaste.Rule = "adaptive",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    unit: _adaste.Unit | None = None,
    away: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Turns updates at the weights into updates at the latents:  u <- c(latent, u) u.

    The rule of `estimators.adaste` on a gradient that is already averaged: whatever
    averages (`jax.lax.pmean`, `optax.MultiSteps`) comes before it. It looks only at
    signs (and at a threshold), so it may stand before or after momentum in a chain;
    measured, it does better after it. In the loss let weights be
    `estimators.adaste(..., rule="identity")`, so that the rule is applied once.

    Args:
        mu: As in `estimators.adaste`; a number, or a schedule of the step count
            (from 0).
        alpha: As in `estimators.adaste`.
        rule: As in `estimators.adaste_slope`.
        cap: As in `estimators.adaste_slope`.
        threshold: As in `estimators.adaste_slope`, on the incoming update.
        unit: As in `estimators.adaste`.
        away: As in `estimators.adaste_slope`.

    Returns:
        A transformation whose `update` needs `params`. Its extra argument `step` is
        the step that a schedule is read at, and the own count otherwise: pass the step
        at which the loss reads mu, so that both see one number.

    Raises:
        ValueError: If a hyperparameter is out of range, or `update` gets no `params`.

    Example:
        >>> import optax
        >>> from adaste_jax import optim
        >>> tx = optax.chain(
        ...     optax.trace(0.9), optim.scale_by_adaste(1.0), optax.scale(-0.01))
    """
    _adaste.check_hyperparameters(
        mu=0.0 if callable(mu) else mu,
        alpha=alpha,
        rule=rule,
        cap=cap,
        threshold=threshold,
        unit=unit,
    )

    def init(params):
        del params
        return ScaleByAdasteState(step=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, step=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError(
                "scale_by_adaste needs the latents: call "
                "`tx.update(updates, state, params)`."
            )
        step = _base.clock(state.step, step)
        value = mu(step) if callable(mu) else mu
        updates = jax.tree.map(
            lambda update, latent: _adaste.adaste_gradient(
                latent,
                update,
                mu=value,
                alpha=alpha,
                rule=rule,
                cap=cap,
                threshold=threshold,
                unit=unit,
                away=away,
            ),
            updates,
            params,
        )
        return updates, ScaleByAdasteState(optax.safe_increment(step))

    return optax.GradientTransformationExtraArgs(init, update)


def adaste(
    learning_rate: optax.ScalarOrSchedule,
    *,
    mu: optax.ScalarOrSchedule,
    alpha: ArrayLike = 0.01,
    rule: _adaste.Rule = "identity",
    cap: ArrayLike = 1.2,
    b1: float = 0.9,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """The recommended update of latents: Adam, then AdaSTE's slope in RMS units.

    In the loss, weights are `estimators.adaste(latent, mu=mu, rule="identity",
    unit="rms", rescale=True)` with the same `mu`. Measured, the annealed forward map
    is what helps and a slope does not (see the table of results), so the slope is the
    identity by default and the chain is Adam; `rule="adaptive"` puts it in.

    Args:
        learning_rate: A number or a schedule; 2e-3 to 1e-2 with a cosine to 0.
        mu: As in `scale_by_adaste`. Best raised geometrically from 0.01 to 1 / alpha
            over the first 80 % of training: `optax.exponential_decay(0.01,
            transition_steps=0.8 * steps, decay_rate=1e4, end_value=100.0)`.
        alpha: As in `estimators.adaste`.
        rule: As in `estimators.adaste_slope`.
        cap: As in `estimators.adaste_slope`. A slope toward zero of more than about
            1.3 times that away from it makes latents chatter about zero.
        b1: Decay of Adam's first moment.
        b2: Decay of Adam's second moment.

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: As in `scale_by_adaste`.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2),
        scale_by_adaste(mu, alpha=alpha, rule=rule, cap=cap, unit="rms"),
        optax.scale_by_learning_rate(learning_rate),
    )


def adaste_released(
    learning_rate: optax.ScalarOrSchedule,
    *,
    mu: optax.ScalarOrSchedule,
    grad_scale: float,
    alpha: ArrayLike = 0.01,
    rule: _adaste.Rule = "released",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    momentum: float = 0.9,
    decay: float = 1.0,
    debias: bool = True,
) -> optax.GradientTransformation:
    """The authors' released update of latents, quirk for quirk.

    With h the gradient at the latents t by `rule`, and m starting at zero,

        m <- momentum m + (1 - momentum) (grad_scale h + decay t)
        t <- t - learning_rate m / (1 - momentum^step).

    It is a chain of `scale_by_adaste`, `optax.scale`, `optax.add_decayed_weights`,
    `optax.ema` and `optax.scale_by_learning_rate`. The released recipe has latents
    that start at +10 and -10 at random, `learning_rate=cosine_per_epoch(3e-4, ...)`,
    `mu=anneal(0.01, 1.05, 100.0, ...)`, and a second training-mode forward pass with
    sign(t) in every step (`train.make_train_step(deployed_pass=True)`).

    Args:
        learning_rate: A number or a schedule of the step count.
        mu: As in `scale_by_adaste`; see `anneal`.
        grad_scale: N^2, with N ten times the number of training examples in the
            released recipe. Latents grow in proportion to N.
        alpha: As in `estimators.adaste`.
        rule: As in `estimators.adaste_slope`; `"identity"` is the authors' STE mode.
        cap: As in `estimators.adaste_slope`.
        threshold: As in `estimators.adaste_slope`. On the gradient before `grad_scale`.
        momentum: Coefficient of the average; 0 in the recipe for CIFAR-100.
        decay: Of the latents, inside the average. Part of the method: it is what
            bounds the latents.
        debias: Whether to divide by 1 - momentum^step.

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: As in `scale_by_adaste`.
    """
    return optax.chain(
        scale_by_adaste(mu, alpha=alpha, rule=rule, cap=cap, threshold=threshold),
        optax.scale(grad_scale),
        optax.add_decayed_weights(decay),
        optax.ema(momentum, debias=debias),
        optax.scale_by_learning_rate(learning_rate),
    )
