"""Weights that are periodic in the latents."""

import functools
import math
from typing import Unpack

import jax
import jax.numpy as jnp

from adaste_jax import estimators
from adaste_jax.methods import _build
from adaste_jax.methods._build import build
from adaste_jax.methods._method import Method, Rate, Run, check, length_of


def biper(
    steps: int,
    *,
    learning_rate: Rate = 3e-3,
    omega: float = 20.0,
    soft_fraction: float = 2 / 3,
    **run: Unpack[Run],
) -> Method:
    """BiPer: a sine of the latents, then the sign of that sine, with Adam.

        w = sin(omega t), later sign(sin(omega t)),   h = omega cos(omega t) g

    Shipped is sign(sin(omega t)). Vargas et al., CVPR 2024,
    https://arxiv.org/abs/2404.01278, without the trained scale of each channel, and
    with one schedule of the learning rate for both stages; see `estimators.biper`. A
    trained network is scaled layer by layer, so that its largest weight is at the first
    crest of the sine.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        omega: Angular frequency, greater than 0; 20 is published.
        soft_fraction: Share of the run with the sine, in [0, 1]; 2/3 is published.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(omega > 0, "omega", omega, "greater than 0")
    fine = 0 <= soft_fraction <= 1
    check(fine, "soft_fraction", soft_fraction, "in [0, 1]")
    length = length_of(steps, run)
    hard_from = round(soft_fraction * length.steps)
    estimator = functools.partial(estimators.biper, omega=omega)
    return build(
        length,
        learning_rate,
        estimator,
        schedules={"stage": lambda step: jnp.where(step < hard_from, 1.0, 2.0)},
        deploy=functools.partial(estimator, stage=2.0),
        starts=(None, _to_crest(omega)),
        binary_from=hard_from,
    )


def _to_crest(omega: float) -> _build.Start:
    def start(key: jax.Array, leaf: jax.Array) -> jax.Array:
        del key
        top = jnp.max(jnp.abs(leaf), initial=0)
        unit = jnp.where(top > 0, top, jnp.ones((), leaf.dtype))
        return leaf / unit * (math.pi / 2 / omega)

    return start
