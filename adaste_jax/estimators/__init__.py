"""Estimators: latents in, weights out, each with its own backward rule."""

from adaste_jax.estimators._adaste import (
    adaste,
    adaste_forward,
    adaste_gradient,
    adaste_slope,
)
from adaste_jax.estimators._base import Estimator
from adaste_jax.estimators._ste import ste_clipped, ste_identity

__all__ = [
    "Estimator",
    "adaste",
    "adaste_forward",
    "adaste_gradient",
    "adaste_slope",
    "ste_clipped",
    "ste_identity",
]
