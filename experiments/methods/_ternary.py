"""Weights of three values."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from adaste_jax import estimators
from experiments.methods import _parts, _soft
from experiments.methods._base import Length, Method, enter


@enter("ternary_absmean", learning_rate=3e-3)
def _ternary_absmean(options: Any, length: Length) -> Method:
    return _ternary(options, length, estimators.ternary_absmean)


@enter("ternary_twn", learning_rate=3e-3, scale=True)
def _ternary_twn(options: Any, length: Length) -> Method:
    weights = functools.partial(estimators.ternary_twn, scale=options.scale)
    return _ternary(options, length, weights)


@enter("ternary_fixed", learning_rate=3e-3, threshold=0.05)
def _ternary_fixed(options: Any, length: Length) -> Method:
    weights = functools.partial(estimators.ternary_fixed, threshold=options.threshold)
    return _ternary(options, length, weights)


@enter("ternary_tanh", learning_rate=1e-2, beta_end=30.0, anneal_fraction=0.8)
def _ternary_tanh(options: Any, length: Length) -> Method:
    """Mirror descent with three levels; latents start uniform in [-1, 1]."""
    return dataclasses.replace(
        _soft.annealed(options, length, estimators.ternary_tanh),
        initial_latents=_parts.uniform,
        deploy=functools.partial(estimators.ternary_fixed, threshold=0.5),
    )


def _ternary(
    options: Any, length: Length, weights: Callable[[jax.Array], jax.Array]
) -> Method:
    return Method(tx=_parts.adam(options, length), estimator=weights, deploy=weights)
