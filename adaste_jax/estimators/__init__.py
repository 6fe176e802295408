"""Estimators: latents in, weights out, each with its own backward rule.

    recommended          adaste: annealed weights in units of the layer
    sign, fixed rule     ste, ste_clipped, approx_sign, swish_sign
    sign, sharpened      reste, ede, fda, rbnn
    squashed             tanh, md_tanh_s, md_softmax_s, pmf, biper
    scaled signs         scaled_sign, irnet_weight, parq, blend, progressive
    contrastive          adaste_paper, hardtanh_adaste, fenbp
    random               bernoulli_pwgf, bernoulli_hard, bernoulli_identity,
                         bayesbinn_sample, vispa_sample
    ternary              ternary_absmean, ternary_twn, ternary_fixed, ternary_tanh
    groups of inputs     per_group, which applies any of these to groups of inputs
    activations          int8_per_token

`adaste` is the recommended form of AdaSTE. It passes gradients straight-through, and
was the most accurate form in our measurements. `adaste_paper` is the paper's rule, and
with `rule="released"` the rule of the authors' code.

The backward rules of the contrastive estimators are not additive: they need the
gradient of the whole batch. All others commute with averaging and with accumulation.
The random estimators take a key, and `md_softmax_s`, `pmf` and `vispa_sample` have
several latents for each weight.
"""

from typing import TYPE_CHECKING

from adaste_jax import _deprecated
from adaste_jax.estimators._adaste import adaste, adaste_paper
from adaste_jax.estimators._adaste_rule import (
    adaste_forward,
    adaste_gradient,
    adaste_slope,
)
from adaste_jax.estimators._approx_sign import approx_sign
from adaste_jax.estimators._base import Estimator
from adaste_jax.estimators._bayesbinn import bayesbinn_sample
from adaste_jax.estimators._bernoulli import (
    bernoulli_hard,
    bernoulli_identity,
    bernoulli_pwgf,
)
from adaste_jax.estimators._biper import biper
from adaste_jax.estimators._blend import blend
from adaste_jax.estimators._fda import fda
from adaste_jax.estimators._fenbp import fenbp, fenbp_gradient
from adaste_jax.estimators._hardtanh_adaste import (
    hardtanh_adaste,
    hardtanh_adaste_gradient,
)
from adaste_jax.estimators._int8 import int8_per_token
from adaste_jax.estimators._irnet import ede, irnet_weight
from adaste_jax.estimators._parq import parq
from adaste_jax.estimators._per_group import per_group
from adaste_jax.estimators._progressive import progressive
from adaste_jax.estimators._rbnn import rbnn
from adaste_jax.estimators._reste import reste
from adaste_jax.estimators._scaled_sign import scaled_sign
from adaste_jax.estimators._softmax import md_softmax_s, pmf, softmax_deploy
from adaste_jax.estimators._ste import ste, ste_clipped
from adaste_jax.estimators._swish_sign import swish_sign
from adaste_jax.estimators._tanh import md_tanh_s, tanh
from adaste_jax.estimators._ternary_absmean import ternary_absmean
from adaste_jax.estimators._ternary_tanh import ternary_tanh
from adaste_jax.estimators._ternary_twn import ternary_fixed, ternary_twn
from adaste_jax.estimators._vispa import vispa_probability, vispa_sample

__all__ = [
    "Estimator",
    "adaste",
    "adaste_forward",
    "adaste_gradient",
    "adaste_paper",
    "adaste_slope",
    "approx_sign",
    "bayesbinn_sample",
    "bernoulli_hard",
    "bernoulli_identity",
    "bernoulli_pwgf",
    "biper",
    "blend",
    "ede",
    "fda",
    "fenbp",
    "fenbp_gradient",
    "hardtanh_adaste",
    "hardtanh_adaste_gradient",
    "int8_per_token",
    "irnet_weight",
    "md_softmax_s",
    "md_tanh_s",
    "parq",
    "per_group",
    "pmf",
    "progressive",
    "rbnn",
    "reste",
    "scaled_sign",
    "softmax_deploy",
    "ste",
    "ste_clipped",
    "swish_sign",
    "tanh",
    "ternary_absmean",
    "ternary_fixed",
    "ternary_tanh",
    "ternary_twn",
    "vispa_probability",
    "vispa_sample",
]

if not TYPE_CHECKING:  # a type checker reports old names
    __getattr__ = _deprecated.old_names(
        __name__, {"ste_identity": (ste, "estimators.ste")}, goes_in="0.3"
    )
