"""Optax gradient transformations for latents, their schedules, and labels.

Latents are the `params` of an update.

    whole optimisers      adaste_averaged, adaste_released, binary_connect, bop,
                          bayesbinn, proxquant, md_tanh, md_softmax, vispa
    parts of a chain      scale_by_adaste, scale_by_hardtanh_adaste, scale_by_fenbp,
                          scale_by_bayesbinn, scale_by_early_adam, scale_by_glorot,
                          scale_by_ovsw, clip_latents, apply_prox, apply_cage,
                          freeze_oscillations
    schedules             per_epoch, and those of Optax

For AdaSTE, `scale_by_adaste` is the paper's rule, `adaste_averaged` applies that rule
to a moving average of the gradient, and `adaste_released` is the update of the authors'
code. The recommended form (`methods.adaste`) needs nothing from this module: it is an
estimator with `optax.adam`.
"""

from typing import TYPE_CHECKING

from adaste_jax import _deprecated
from adaste_jax.optim import _old
from adaste_jax.optim._adaste import (
    adaste_averaged,
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
from adaste_jax.optim._cage import apply_cage
from adaste_jax.optim._contrastive import scale_by_fenbp, scale_by_hardtanh_adaste
from adaste_jax.optim._freezing import FreezeState, freeze_oscillations
from adaste_jax.optim._labels import labels
from adaste_jax.optim._mirror_descent import (
    ScaleByEarlyAdamState,
    md_softmax,
    md_tanh,
    scale_by_early_adam,
)
from adaste_jax.optim._ovsw import OvswState, scale_by_ovsw
from adaste_jax.optim._proxquant import (
    apply_prox,
    prox,
    proxquant,
)
from adaste_jax.optim._schedules import per_epoch
from adaste_jax.optim._vispa import vispa

__all__ = [
    "BopState",
    "FreezeState",
    "OvswState",
    "ScaleByBayesbinnState",
    "ScaleByEarlyAdamState",
    "StepState",
    "adaste_averaged",
    "adaste_released",
    "apply_cage",
    "apply_prox",
    "bayesbinn",
    "binary_connect",
    "binary_signs",
    "bop",
    "clip_latents",
    "freeze_oscillations",
    "labels",
    "md_softmax",
    "md_tanh",
    "per_epoch",
    "prox",
    "proxquant",
    "scale_by_adaste",
    "scale_by_bayesbinn",
    "scale_by_early_adam",
    "scale_by_fenbp",
    "scale_by_glorot",
    "scale_by_hardtanh_adaste",
    "scale_by_ovsw",
    "vispa",
]

if not TYPE_CHECKING:  # a type checker reports old names
    __getattr__ = _deprecated.old_names(__name__, _old.NAMES, goes_in="0.3")
