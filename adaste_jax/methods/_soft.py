"""Soft weights that never become exactly binary; most sharpen during training.

The methods of mirror descent are those of Ajanthan, Gupta, Torr, Hartley and Dokania,
"Mirror Descent View for Neural Network Quantization", AISTATS 2021,
https://arxiv.org/abs/1910.08237. Signs are shipped. Published runs have 100,000 steps.
"""

import functools
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from adaste_jax import estimators, optim
from adaste_jax.estimators import _softmax
from adaste_jax.methods import _build, _units
from adaste_jax.methods._build import build
from adaste_jax.methods._method import NEVER, Length, Method, Rate, Run, length_of
from adaste_jax.methods._schedules import growth


def tanh(
    steps: int,
    *,
    learning_rate: Rate = 1e-2,
    beta_end: float = 30.0,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """Tanh weights that sharpen, with their plain gradient.

        w = tanh(beta t),   h = beta (1 - w^2) g,   beta from 1 to `beta_end`

    Source: see the module and `estimators.tanh`. Learning rates around the default are
    measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return annealed(
        length_of(steps, run), learning_rate, estimators.tanh, beta_end, anneal_fraction
    )


def md_tanh_s(
    steps: int,
    *,
    learning_rate: Rate = 1e-2,
    beta_end: float = 1e3,
    anneal_fraction: float = 0.8,
    unit: str = "absolute",
    **run: Unpack[Run],
) -> Method:
    """Mirror descent on tanh weights, in its stable form: straight-through.

        w = tanh(beta t / u),   h = g,   beta from 1 to `beta_end`

    Source: see the module and `estimators.md_tanh_s`. Learning rates around the default
    are measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        unit: u: `"absolute"` is 1, as published; `"layer"` or `"channel"`: rms of t.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return annealed(
        length_of(steps, run),
        learning_rate,
        _units.in_rms(estimators.md_tanh_s, unit),
        beta_end,
        anneal_fraction,
    )


def md_softmax_s(
    steps: int,
    *,
    learning_rate: Rate = 1e-2,
    beta_end: float = 1e3,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """Mirror descent on the simplex, in its stable form; latents a and b for a weight.

        w = tanh(beta (b - a) / 2),   h = (-g, g),   beta from 1 to `beta_end`

    It starts from opposite latents, and then equals `md_tanh_s` with twice the memory.
    Source: see the module and `estimators.md_softmax_s`. Learning rates around the
    default are measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return annealed(
        length_of(steps, run),
        learning_rate,
        estimators.md_softmax_s,
        beta_end,
        anneal_fraction,
        **_PAIRS,
    )


def pmf(
    steps: int,
    *,
    learning_rate: Rate = 1e-2,
    beta_end: float = 30.0,
    anneal_fraction: float = 0.8,
    jacobian: _softmax.Jacobian = "exact",
    **run: Unpack[Run],
) -> Method:
    """Proximal mean-field: two latents a and b for a weight, their softmax sharpens.

        w = tanh(beta (b - a) / 2),   h through the softmax,   beta from 1 to `beta_end`

    Ajanthan, Dokania, Hartley and Torr, ICCV 2019, https://arxiv.org/abs/1812.04353;
    see `estimators.pmf`. Learning rates around the default are measured in
    docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        jacobian: The derivative of the softmax: `"exact"`, or `"published"` for that of
            the authors' code.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    estimator = functools.partial(estimators.pmf, jacobian=jacobian)
    return annealed(
        length_of(steps, run),
        learning_rate,
        estimator,
        beta_end,
        anneal_fraction,
        **_PAIRS,
    )


def md_tanh(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    beta_end: float = 100.0,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """Mirror descent on tanh weights, in its direct form: beta multiplies the steps.

        w = tanh(t),   w <- tanh(atanh(w) - lr beta d),   beta from 1 to `beta_end`

    Source: see the module and `optim.md_tanh`. Learning rates around the default are
    measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    beta = growth(length, beta_end, anneal_fraction)
    return build(
        length,
        learning_rate,
        functools.partial(estimators.md_tanh_s, beta=1.0),
        tx=functools.partial(optim.md_tanh, beta=beta),
        binary_from=NEVER,
    )


def md_softmax(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    beta_end: float = 100.0,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """Exponentiated gradient: mirror descent on the simplex, in its direct form.

        u <- u exp(-lr beta d) / sum,   w = u_+ - u_-,   beta from 1 to `beta_end`

    Source: see the module and `optim.md_softmax`. Learning rates around the default are
    measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    length = length_of(steps, run)
    beta = growth(length, beta_end, anneal_fraction)
    return build(
        length,
        learning_rate,
        functools.partial(estimators.md_softmax_s, beta=1.0),
        tx=functools.partial(optim.md_softmax, beta=beta),
        binary_from=NEVER,
        **_PAIRS,
    )


def hardtanh_adaste(
    steps: int, *, learning_rate: Rate = 1e-2, **run: Unpack[Run]
) -> Method:
    """AdaSTE for hard tanh: the rule is applied to the averaged gradient, before Adam.

        w = clip(t, -1, 1);   |t| >= 1: h = 2 g / (1 + |t|) toward zero, else 0

    and h = g for |t| < 1. In a short run nothing drives weights to +1 and -1, so
    accuracy is lost when the sign is taken. A later variant by a co-author of AdaSTE;
    see `estimators.hardtanh_adaste`. Learning rates around the default are measured in
    docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        functools.partial(estimators.hardtanh_adaste, straight_through=True),
        first=optim.scale_by_hardtanh_adaste(),
        binary_from=NEVER,
    )


def fenbp(
    steps: int, *, learning_rate: Rate = 1e-2, beta: float = 100.0, **run: Unpack[Run]
) -> Method:
    """FenBP: the contrastive rule of tanh on the averaged gradient, before Adam.

        w = tanh(t),   h = (tanh(t) - tanh(t - beta g)) / beta

    Trained with soft weights, shipped as signs. Zach, 2021,
    https://arxiv.org/abs/2105.07231; see `estimators.fenbp`. Learning rates around the
    default are measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta: Length of the contrastive step, at least 0.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        functools.partial(estimators.fenbp, beta=beta, straight_through=True),
        first=optim.scale_by_fenbp(beta),
        binary_from=NEVER,
    )


def annealed(
    length: Length,
    learning_rate: Rate,
    estimator: _build.Map,
    beta_end: float,
    anneal_fraction: float,
    **options: Any,
) -> Method:
    """Adam, and weights that approach +1 and -1 as beta grows."""
    beta = growth(length, beta_end, anneal_fraction)
    return build(
        length,
        learning_rate,
        estimator,
        schedules={"beta": beta},
        binary_from=NEVER,
        **options,
    )


def _opposite(key: jax.Array, leaf: jax.Array) -> jax.Array:
    """Two latents for each weight, which start equal and opposite."""
    del key
    return jnp.stack([-leaf, leaf], axis=-1)


_PAIRS: dict[str, Any] = {
    "starts": (_opposite, _opposite),
    "deploy": estimators.softmax_deploy,
}
