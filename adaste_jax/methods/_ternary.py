"""Weights of three values, not one bit. Training and shipped weights are the same.

Learning rates around the default are measured in docs/results/compare_digits.md.
"""

import functools
from typing import Unpack

from adaste_jax import estimators
from adaste_jax.methods import _build, _soft, _units
from adaste_jax.methods._build import build
from adaste_jax.methods._method import (
    Method,
    Rate,
    Run,
    by_tensor,
    length_of,
    no_scales,
)


def ternary_absmean(
    steps: int, *, learning_rate: Rate = 3e-3, group: int = 0, **run: Unpack[Run]
) -> Method:
    """The ternary weights of BitNet b1.58, with Adam.

        w = s clip(round(t / s), -1, 1),   s = mean |t|,   h = g

    Ma et al., 2024, https://arxiv.org/abs/2402.17764; see
    `estimators.ternary_absmean`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        group: Number of inputs of an output that share a scale; 0 for one scale per
            layer, as published. It must divide the second-to-last axis of every kernel;
            see `estimators.per_group`.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    weights, scales = _units.in_groups(estimators.ternary_absmean, group, by_tensor)
    return build(
        length_of(steps, run),
        learning_rate,
        weights,
        deploy=weights,
        levels=3,
        scales=scales,
    )


def ternary_twn(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    scale: bool = True,
    group: int = 0,
    **run: Unpack[Run],
) -> Method:
    """Ternary weight networks, with Adam.

        w = a sign(t) where |t| > 0.7 mean |t|, else 0,   h = g 1[|t| <= 1]

    Li, Zhang and Liu, 2016, https://arxiv.org/abs/1605.04711; see
    `estimators.ternary_twn`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        scale: If true, a is the mean |t| of the weights that are not 0; otherwise 1.
        group: Number of inputs of an output that share a threshold and a scale; 0 for
            one per layer, as published. It must divide the second-to-last axis of every
            kernel; see `estimators.per_group`.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    weights, scales = _units.in_groups(
        functools.partial(estimators.ternary_twn, scale=scale), group, by_tensor
    )
    return build(
        length_of(steps, run),
        learning_rate,
        weights,
        deploy=weights,
        levels=3,
        scales=scales if scale else no_scales,
    )


def ternary_fixed(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    threshold: float = 0.05,
    **run: Unpack[Run],
) -> Method:
    """Ternary weights with a fixed threshold, with Adam.

        w = sign(t) where |t| >= threshold, else 0,   h = g 1[|t| <= 1]

    The same as `ste_tern` in Larq, https://docs.larq.dev/larq/api/quantizers/; see
    `estimators.ternary_fixed`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        threshold: Latents below this magnitude give 0; at least 0.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    weights = functools.partial(estimators.ternary_fixed, threshold=threshold)
    return build(
        length_of(steps, run), learning_rate, weights, deploy=weights, levels=3
    )


def ternary_tanh(
    steps: int,
    *,
    learning_rate: Rate = 1e-2,
    beta_end: float = 30.0,
    anneal_fraction: float = 0.8,
    **run: Unpack[Run],
) -> Method:
    """Mirror descent with three levels, with Adam; latents start uniform in [-1, 1].

        w = (tanh(beta (t + 1/2)) + tanh(beta (t - 1/2))) / 2,   h = g

    The nearest level is shipped. Ajanthan, Gupta, Torr, Hartley and Dokania, AISTATS
    2021, https://arxiv.org/abs/1910.08237; see `estimators.ternary_tanh`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        beta_end: beta at the end of annealing, at least 1; it grows geometrically.
        anneal_fraction: Share of the run in which beta grows.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return _soft.annealed(
        length_of(steps, run),
        learning_rate,
        estimators.ternary_tanh,
        beta_end,
        anneal_fraction,
        starts=(_build.uniform, None),
        deploy=functools.partial(estimators.ternary_fixed, threshold=0.5),
        levels=3,
    )
