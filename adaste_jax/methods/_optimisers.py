"""Methods that differ only in the transformation; the loss sees the parameters."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax

from adaste_jax import estimators, optim
from adaste_jax.methods import _build, _schedules
from adaste_jax.methods._build import build
from adaste_jax.methods._method import NEVER, Method, Rate, Run, check, length_of


def full_precision(
    steps: int, *, learning_rate: Rate = 1e-3, **run: Unpack[Run]
) -> Method:
    """Real weights, w = t, trained by Adam: the reference for one-bit weights.

    There are no latents. `learning_rate` is that of all parameters, so `where` and
    `real_learning_rate`, which every method takes, have no effect here. Learning rates
    around the default are measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of all parameters.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    rate = _schedules.cosine(length, "learning_rate", learning_rate)

    def none(params: Any) -> Any:
        return jax.tree.map(lambda _: False, params)

    return Method(
        init=lambda key, params, trained=False: params,
        weights=lambda params, step, key=None: params,
        tx=_build.on_the_step(length.optimiser(rate)),
        deploy=lambda params: params,
        where=none,
        values=lambda step: {},
    )


def bop(
    steps: int, *, learning_rate: Rate = 1e-3, tau: float = 1e-7, **run: Unpack[Run]
) -> Method:
    """Bop: weights without latents, flipped by a moving average of the gradient.

        m <- (1 - gamma) m + gamma g,   w <- -w if w m > tau

    Training needs the least memory of all methods. Helwegen et al., NeurIPS 2019,
    https://arxiv.org/abs/1906.02107; see `optim.bop`. Learning rates around the default
    are measured in docs/results/compare_digits.md. Published for 500 epochs: gamma 1e-4
    and tau 1e-8.

    Args:
        steps: Training steps of the run.
        learning_rate: The rate gamma of the average.
        tau: Threshold, at least 0.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        estimators.ste,
        tx=lambda gamma: optim.bop(gamma, tau=tau),
        starts=(_build.signs(1.0), _build.signs(1.0)),
    )


def proxquant(
    steps: int, *, learning_rate: Rate = 1e-2, pull: float = 4.0, **run: Unpack[Run]
) -> Method:
    """ProxQuant: real weights, pulled toward +1 and -1 after each step of Adam.

        t <- clip(prox(t - lr d), -1, 1),   w = t in training, sign(t) when shipped

    Bai, Wang and Liberty, ICLR 2019, https://arxiv.org/abs/1810.00861; see
    `optim.proxquant`. The strength of the pull grows linearly, as published, but
    reaches its end value in a run of any length. The paper starts from a trained
    network. Learning rates around the default are measured in
    docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        pull: Largest distance that all proximal maps together move a weight, at least
            0.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(pull >= 0, "pull", pull, "at least 0")
    strength = optax.linear_schedule(0.0, 2 * pull / max(steps, 1), max(steps, 1))
    return build(
        length_of(steps, run),
        learning_rate,
        lambda weight: weight,
        tx=lambda rate: optim.proxquant(rate, strength=strength, clip=True),
        binary_from=NEVER,
    )


def ovsw(
    steps: int,
    *,
    learning_rate: Rate = 0.1,
    delta: float = 0.04,
    decay: float = 9e-4,
    **run: Unpack[Run],
) -> Method:
    """OvSW: STE and SGD, with gradients that are not too small and a decay for silence.

        w = sign(t);   h = g max(1, delta |t| / |g|), norms of a channel
        h <- h + decay t   where the sign of t has not flipped for long

    SGD has the momentum 0.9. Xiang et al., ECCV 2024, https://arxiv.org/abs/2407.05257,
    without its further weight decay and its scale of each channel, which batch norm
    cancels; see `optim.scale_by_ovsw`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents; 0.1 is published.
        delta: Least norm of the gradient of a channel, relative to that of its latents,
            at least 0; 0.04 is published for CIFAR-10, 0.01 for ImageNet.
        decay: Pull of silent latents, at least 0; 9e-4 and 2e-5 are published.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        estimators.ste,
        tx=lambda rate: optax.sgd(rate, momentum=0.9),
        first=optim.scale_by_ovsw(delta, decay=decay),
    )


def freezing(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    threshold_init: float = 0.1,
    threshold_end: float = 0.01,
    momentum: float = 1e-3,
    free_fraction: float = 0.25,
    **run: Unpack[Run],
) -> Method:
    """STE with Adam, and latents that oscillate are frozen at their average sign.

        f <- m o + (1 - m) f,   o = 1 where a sign flips back
        t <- +1 or -1, for ever, from the step with f > threshold

    After `free_fraction` of the run the threshold falls from `threshold_init` to
    `threshold_end` on a cosine; before it nothing is frozen. Nagel et al., ICML 2022,
    https://arxiv.org/abs/2203.11086; see `optim.freeze_oscillations`. The source has 3
    and 4 bits and starts from a trained network.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        threshold_init: Threshold where freezing begins, at least 0.
        threshold_end: Threshold at the end, at least 0.
        momentum: m, in [0, 1].
        free_fraction: Share of the run in which nothing is frozen, in [0, 1).
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    for name, value in (("_init", threshold_init), ("_end", threshold_end)):
        check(value >= 0, f"threshold{name}", value, "at least 0")
    fine = 0 <= free_fraction < 1
    check(fine, "free_fraction", free_fraction, "in [0, 1)")
    length = length_of(steps, run)

    def threshold(step: Any) -> Any:
        share = (step / length.steps - free_fraction) / (1 - free_fraction)
        left = (1 + jnp.cos(jnp.pi * jnp.clip(share, 0.0, 1.0))) / 2
        limit = threshold_end + (threshold_init - threshold_end) * left
        return jnp.where(share < 0, jnp.inf, limit)

    return build(
        length,
        learning_rate,
        estimators.ste,
        last=optim.freeze_oscillations(threshold, momentum=momentum),
    )
