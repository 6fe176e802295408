"""Optax gradient transformations for latents, their schedules, and labels."""

from adaste_jax.optim._adaste import (
    ScaleByAdasteState,
    adaste,
    adaste_released,
    scale_by_adaste,
)
from adaste_jax.optim._labels import labels
from adaste_jax.optim._schedules import anneal, cosine_per_epoch

__all__ = [
    "ScaleByAdasteState",
    "adaste",
    "adaste_released",
    "anneal",
    "cosine_per_epoch",
    "labels",
    "scale_by_adaste",
]
