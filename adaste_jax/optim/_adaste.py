"""AdaSTE as Optax gradient transformations. Latents are the `params`.

Le, Høier, Lin and Zach, CVPR 2022, https://arxiv.org/abs/2112.02880. The mathematics
is in `adaste_jax.estimators`.
"""

import optax
from jax.typing import ArrayLike

from adaste_jax.estimators import _adaste_rule
from adaste_jax.optim import _base


def scale_by_adaste(
    mu: optax.ScalarOrSchedule,
    *,
    alpha: ArrayLike = 0.01,
    rule: _adaste_rule.Rule = "adaptive",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    unit: _adaste_rule.Unit | None = None,
    away: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The paper's rule on updates that are already averaged:  u <- c(latent, u) u.

    Put every average (`jax.lax.pmean`, `optax.MultiSteps`) before it. The rule depends
    only on signs (and on a threshold), so it may stand before or after momentum in a
    chain; in our measurements after momentum is better, as in `adaste_averaged`. In the
    loss use the weights `estimators.adaste_paper(latent, mu=mu, rule="identity")` or
    `estimators.ste(latent)`, so that the rule is applied once. The recommended form,
    `methods.adaste`, does not use this rule: its transformation is `optax.adam`.

    Args:
        mu: Annealing weight, at least 0: a number, or a schedule of the step count
            (from 0).
        alpha: Margin, in (0, 1), scalar.
        rule: The slope c: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`;
            `estimators.adaste_slope` has their formulas.
        cap: Largest slope toward zero, at least 0; `inf` for none.
        threshold: Updates up to this size skip the rule. Default: 0.001 for `released`,
            none otherwise.
        unit: `"rms"` takes the slope at the latents divided by their root mean square
            over the tensor. Default: at the latents themselves.
        away: Slope away from zero, at least 0. Default: that of the rule.

    Returns:
        A transformation whose `update` needs `params`. Schedules are read at its extra
        argument `step`, or at its own count of updates without it. Pass the step at
        which the loss reads mu, so that both use the same value.

    Raises:
        ValueError: If a hyperparameter is out of range, or `update` gets no `params`.

    Example:
        >>> import optax
        >>> from adaste_jax import optim
        >>> tx = optax.chain(
        ...     optax.trace(0.9), optim.scale_by_adaste(1.0), optax.scale(-0.01))
    """
    hyper = _adaste_rule.check_hyperparameters(
        0.0 if callable(mu) else mu, alpha, cap, threshold, rule=rule, unit=unit
    )
    fixed = {name: value for name, value in hyper._asdict().items() if name != "mu"}
    return _base.leafwise(
        "scale_by_adaste",
        lambda update, latent, mu: _adaste_rule.adaste_gradient(
            latent, update, mu=mu, rule=rule, unit=unit, away=away, **fixed
        ),
        mu,
    )


def adaste_averaged(
    learning_rate: optax.ScalarOrSchedule,
    *,
    mu: optax.ScalarOrSchedule,
    momentum: float = 0.99,
    rule: _adaste_rule.Rule = "adaptive",
    cap: ArrayLike = 2.0,
    away: ArrayLike = 1.0,
    alpha: ArrayLike = 0.01,
) -> optax.GradientTransformation:
    """The paper's rule on a moving average of the gradient: a whole optimiser.

        m <- momentum m + (1 - momentum) g
        t <- t - learning_rate c(t, sign m) m / (1 - momentum^step)

    The average is an addition of this library. With it the rule is more accurate than
    on the gradient of a minibatch, but not more than `estimators.ste` with Adam
    (docs/results/adaptive_rule.md). In the loss use the weights
    `estimators.ste(latent)`.

    Args:
        learning_rate: A number or a schedule of the step count. It was 30 in the short
            runs that were measured, since m is not normalised.
        mu: Annealing weight, at least 0: a number, or a schedule of the step count.
        momentum: Coefficient of the average, in [0, 1).
        rule: The slope c: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`.
        cap: Largest slope toward zero, at least 0.
        away: Slope away from zero, at least 0.
        alpha: Margin, in (0, 1), scalar.

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: If a hyperparameter of the rule is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import optim
        >>> tx = optim.adaste_averaged(0.1, mu=100.0)
        >>> latent = jnp.array([4.0, 4.0])
        >>> update, _ = tx.update(jnp.array([0.2, -0.2]), tx.init(latent), latent)
        >>> update.round(4)  # toward zero, and away from it
        Array([-0.01,  0.02], dtype=float32)
    """
    return optax.chain(
        optax.ema(momentum),
        scale_by_adaste(mu, alpha=alpha, rule=rule, cap=cap, away=away),
        optax.scale_by_learning_rate(learning_rate),
    )


def adaste_released(
    learning_rate: optax.ScalarOrSchedule,
    *,
    mu: optax.ScalarOrSchedule,
    grad_scale: float,
    alpha: ArrayLike = 0.01,
    rule: _adaste_rule.Rule = "released",
    cap: ArrayLike = 0.5,
    threshold: ArrayLike | None = None,
    momentum: float = 0.9,
    decay: float = 1.0,
    debias: bool = True,
) -> optax.GradientTransformation:
    """The update of latents in the authors' code, with all of its peculiarities.

    With h the gradient at the latents t by `rule`, and m starting at zero,

        m <- momentum m + (1 - momentum) (grad_scale h + decay t)
        t <- t - learning_rate m / (1 - momentum^step).

    In the loss use the weights
    `estimators.adaste_paper(latent, mu=mu, rule="identity")`. The released recipe,
    `methods.adaste_released`, starts latents at +10 and -10 at random. It has two
    schedules that change once per epoch; in epoch e (from 0) of E they are

        mu             min(0.01 1.05^(e + 1), 1 / alpha)
        learning rate  a cosine of (e + 1) / E from 3e-4 to 1e-16,

    and a second training-mode forward pass with sign(t) in every step.

    Args:
        learning_rate: A number or a schedule of the step count.
        mu: Annealing weight, at least 0: a number, or a schedule of the step count.
        grad_scale: N^2, with N ten times the number of training examples in the
            released recipe. Latents grow in proportion to N.
        alpha: Margin, in (0, 1), scalar. From mu = 1 / alpha on weights are signs.
        rule: The slope: `"released"`, `"adaptive"` or `"supremum"`; `"identity"` is the
            authors' STE mode.
        cap: Largest slope toward zero, at least 0.
        threshold: Gradients up to this size, before `grad_scale`, skip the rule.
            Default: 0.001 for `released`, none otherwise.
        momentum: Coefficient of the average; 0 in the recipe for CIFAR-100.
        decay: Weight decay of the latents, inside the average. It is part of the
            method, since only the decay bounds the latents.
        debias: Whether to divide by 1 - momentum^step.

    Returns:
        A chain; its `update` needs `params`.

    Raises:
        ValueError: If a hyperparameter of the rule is out of range.

    Example:
        >>> import optax
        >>> from adaste_jax import optim
        >>> mu = optax.exponential_decay(0.0105, 1, 1.05, end_value=100.0)
        >>> tx = optim.adaste_released(
        ...     3e-4, mu=optim.per_epoch(mu, 391), grad_scale=500_000.0**2)
    """
    return optax.chain(
        scale_by_adaste(mu, alpha=alpha, rule=rule, cap=cap, threshold=threshold),
        optax.scale(grad_scale),
        optax.add_decayed_weights(decay),
        optax.ema(momentum, debias=debias),
        optax.scale_by_learning_rate(learning_rate),
    )
