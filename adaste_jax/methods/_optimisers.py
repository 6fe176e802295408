"""Methods that differ only in the transformation; the loss sees the parameters."""

from typing import Any, Unpack

import jax
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
