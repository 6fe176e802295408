"""AdaSTE: the recommended form, the paper's rule, and the authors' code.

Le, Høier, Lin and Zach, "AdaSTE: An Adaptive Straight-Through Estimator to Train
Binary Neural Networks", CVPR 2022, https://arxiv.org/abs/2112.02880.
"""

import functools
import math
from typing import Unpack

import optax

from adaste_jax import estimators, optim
from adaste_jax.estimators import _adaste_rule
from adaste_jax.methods import _build, _schedules, _units
from adaste_jax.methods._build import build
from adaste_jax.methods._method import NEVER, Method, Rate, Run, check, length_of
from adaste_jax.methods._schedules import annealing


def adaste(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    alpha: float = 0.01,
    mu_init: float = 0.01,
    mu_end: float = 100.0,
    anneal_fraction: float = 0.8,
    unit: str = "layer",
    **run: Unpack[Run],
) -> Method:
    """AdaSTE, the recommended form: soft weights that are annealed to signs, and Adam.

        a = |t| / rms(t),   s = min(1, (a + mu (1 + alpha)) / (1 + mu))
        w = sign(t) s / mean(s),   h = g

    The forward map s is the paper's. This library adds the units of the layer, the mean
    of 1 and the straight-through backward rule: in our measurements the paper's slope
    does not help (docs/results/adaptive_rule.md). See `estimators.adaste`. Learning
    rates around the default are measured in docs/results/compare_digits.md; in other
    runs 2e-3 (dense layers) to 1e-2 (convolutions) were best.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        alpha: Margin, in (0, 1). From mu = 1 / alpha on weights are signs.
        mu_init: mu in step 0.
        mu_end: mu at the end of annealing; it grows geometrically.
        anneal_fraction: Share of the run in which mu grows.
        unit: Over what rms and mean are taken: `"layer"`, or `"channel"`, the latents
            of one output.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    mu, binary_from = annealing(length, alpha, mu_init, mu_end, anneal_fraction)
    estimator = functools.partial(_units.of(estimators.adaste, unit), alpha=alpha)
    return build(
        length, learning_rate, estimator, schedules={"mu": mu}, binary_from=binary_from
    )


def adaste_paper(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    rule: _adaste_rule.Rule = "adaptive",
    cap: float = 0.5,
    alpha: float = 0.01,
    mu_init: float = 0.01,
    mu_end: float = 100.0,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """AdaSTE, the paper's rule, applied to the gradient of each batch.

        w = sign(t) min(1, (|t| + mu (1 + alpha)) / (1 + mu)),   h = c(t, sign g) g

    Adam takes h. The slope c (`estimators.adaste_slope`) is not additive in g. It is
    larger toward zero than away from zero, so noise drives latents to zero, where they
    flip. It is less accurate than `adaste` and `ste` (docs/results/adaptive_rule.md).
    See `estimators.adaste_paper`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        rule: The slope: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`.
        cap: Largest slope toward zero, at least 0.
        alpha: Margin, in (0, 1).
        mu_init: mu in step 0.
        mu_end: mu at the end of annealing; it grows geometrically.
        anneal_fraction: Share of the run in which mu grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    mu, binary_from = annealing(length, alpha, mu_init, mu_end, anneal_fraction)
    return build(
        length,
        learning_rate,
        functools.partial(estimators.adaste_paper, alpha=alpha, rule=rule, cap=cap),
        schedules={"mu": mu},
        binary_from=binary_from,
        additive=rule == "identity",
    )


def adaste_averaged(
    steps: int,
    *,
    learning_rate: Rate = 30.0,
    momentum: float = 0.99,
    rule: _adaste_rule.Rule = "adaptive",
    cap: float = 2.0,
    away: float = 1.0,
    alpha: float = 0.01,
    mu_init: float = 0.01,
    mu_end: float = 100.0,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """AdaSTE's rule on a moving average of the gradient; weights are signs throughout.

        w = sign(t),   m <- 0.99 m + 0.01 g,   t <- t - lr c(t, sign m) m

    The average is an addition of this library; see `optim.adaste_averaged`. It is more
    accurate than the same average without the slope, but not than `ste` with Adam; soft
    weights lose 4 points more (docs/results/adaptive_rule.md).

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        momentum: Coefficient of the average, in [0, 1).
        rule: The slope: `"adaptive"`, `"supremum"`, `"released"` or `"identity"`.
        cap: Largest slope toward zero, at least 0.
        away: Slope away from zero, at least 0.
        alpha: Margin, in (0, 1).
        mu_init: mu in step 0.
        mu_end: mu at the end of annealing; it grows geometrically.
        anneal_fraction: Share of the run in which mu grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
    check(away >= 0, "away", away, "at least 0")
    length = length_of(steps, run)
    mu, _ = annealing(length, alpha, mu_init, mu_end, anneal_fraction)
    return build(
        length,
        learning_rate,
        estimators.ste,
        tx=lambda rate: optim.adaste_averaged(
            rate,
            mu=mu,
            momentum=momentum,
            rule=rule,
            cap=cap,
            away=away,
            alpha=alpha,
        ),
    )


def adaste_released(
    steps: int,
    *,
    learning_rate: Rate = 3e-4,
    momentum: float = 0.9,
    decay: float = 1.0,
    multiplier: float = 10.0,
    alpha: float = 0.01,
    mu_init: float = 0.01,
    mu_rate: float = 1.05,
    rule: _adaste_rule.Rule = "released",
    initial_latent: float = 10.0,
    deployed_pass: bool = True,
    **run: Unpack[Run],
) -> Method:
    """AdaSTE as in the authors' code, with all its peculiarities.

        t <- t - lr m / (1 - b^step),   m <- b m + (1 - b) (N^2 h + decay t)

    N is `num_examples` times `multiplier`. Use it to reproduce published numbers; see
    `optim.adaste_released`. Schedules change once per epoch; without `steps_per_epoch`
    the run counts as the published 700 epochs. Defaults are those of the released code
    for CIFAR-10.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents; it falls on a cosine of the epoch.
        momentum: b, in [0, 1); 0 for CIFAR-100.
        decay: Weight decay of the latents, at least 0.
        multiplier: Factor of the number of examples.
        alpha: Margin, in (0, 1). From mu = 1 / alpha on weights are signs.
        mu_init: mu before the first epoch.
        mu_rate: Factor of mu, applied before each epoch; 1.009 for TinyImageNet.
        rule: The slope; `"identity"` is the authors' STE mode.
        initial_latent: Latents start at plus or minus this value, at random.
        deployed_pass: Whether a second forward pass, with signs, ends each step.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(0 < alpha < 1, "alpha", alpha, "in (0, 1)")
    check(0 < mu_init <= 1 / alpha, "mu_init", mu_init, f"in (0, {1 / alpha:g}]")
    check(mu_rate >= 1, "mu_rate", mu_rate, "at least 1")
    check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
    check(decay >= 0, "decay", decay, "at least 0")
    check(multiplier > 0, "multiplier", multiplier, "greater than 0")
    length = length_of(steps, run)
    num_epochs, steps_per_epoch = length.epochs(published=700)
    mu = optim.per_epoch(
        optax.exponential_decay(mu_init * mu_rate, 1, mu_rate, end_value=1 / alpha),
        steps_per_epoch,
    )
    if not callable(learning_rate):
        _schedules.check_rate("learning_rate", learning_rate)
        learning_rate = optim.per_epoch(
            _schedules.released_cosine(learning_rate, num_epochs), steps_per_epoch
        )
    return build(
        length,
        learning_rate,
        functools.partial(estimators.adaste_paper, alpha=alpha, rule="identity"),
        tx=lambda rate: optim.adaste_released(
            rate,
            mu=mu,
            grad_scale=(multiplier * length.examples) ** 2,
            alpha=alpha,
            rule=rule,
            momentum=momentum,
            decay=decay,
        ),
        schedules={"mu": mu},
        starts=(_build.random_signs(initial_latent), _build.signs(initial_latent)),
        binary_from=min(NEVER, _arrival(mu_init, mu_rate, 1 / alpha) * steps_per_epoch),
        deployed_pass=deployed_pass,
    )


def _arrival(init: float, rate: float, end: float) -> int:
    """The epoch from which min(init rate^(epoch + 1), end) is `end`, in float32 too."""
    if rate == 1:
        return 0 if init >= end else NEVER
    return max(0, math.ceil(math.log(1.0001 * end / init) / math.log(rate)) - 1)
