"""Optax gradient transformations for latents, their schedules, and labels.

Latents are the `params` of an update.

    whole optimisers      adaste, adaste_released, binary_connect, bop, bayesbinn,
                          proxquant, md_tanh, md_softmax, vispa
    parts of a chain      scale_by_adaste, scale_by_hardtanh_adaste, scale_by_fenbp,
                          scale_by_bayesbinn, scale_by_early_adam, scale_by_glorot,
                          clip_latents, apply_prox
    schedules             per_epoch, anneal, cosine_per_epoch, reste_exponent,
                          ede_sharpness, grow, proxquant_strength
"""

from adaste_jax.optim._adaste import (
    ScaleByAdasteState,
    adaste,
    adaste_released,
    scale_by_adaste,
)
from adaste_jax.optim._base import StepState
from adaste_jax.optim._bayesbinn import (
    ScaleByBayesbinnState,
    bayesbinn,
    scale_by_bayesbinn,
)
from adaste_jax.optim._binary_connect import (
    binary_connect,
    clip_latents,
    scale_by_glorot,
)
from adaste_jax.optim._bop import BopState, binary_signs, bop
from adaste_jax.optim._contrastive import scale_by_fenbp, scale_by_hardtanh_adaste
from adaste_jax.optim._labels import labels
from adaste_jax.optim._mirror_descent import (
    MIRROR_DESCENT_RECIPES,
    MirrorDescentRecipe,
    ScaleByEarlyAdamState,
    md_softmax,
    md_tanh,
    scale_by_early_adam,
)
from adaste_jax.optim._proxquant import (
    apply_prox,
    prox,
    proxquant,
    proxquant_strength,
)
from adaste_jax.optim._schedules import (
    anneal,
    cosine_per_epoch,
    ede_sharpness,
    grow,
    per_epoch,
    reste_exponent,
)
from adaste_jax.optim._vispa import vispa

__all__ = [
    "MIRROR_DESCENT_RECIPES",
    "BopState",
    "MirrorDescentRecipe",
    "ScaleByAdasteState",
    "ScaleByBayesbinnState",
    "ScaleByEarlyAdamState",
    "StepState",
    "adaste",
    "adaste_released",
    "anneal",
    "apply_prox",
    "bayesbinn",
    "binary_connect",
    "binary_signs",
    "bop",
    "clip_latents",
    "cosine_per_epoch",
    "ede_sharpness",
    "grow",
    "labels",
    "md_softmax",
    "md_tanh",
    "per_epoch",
    "prox",
    "proxquant",
    "proxquant_strength",
    "reste_exponent",
    "scale_by_adaste",
    "scale_by_bayesbinn",
    "scale_by_early_adam",
    "scale_by_fenbp",
    "scale_by_glorot",
    "scale_by_hardtanh_adaste",
    "vispa",
]
