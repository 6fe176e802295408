"""Estimators: latents in, weights out, each with its own backward rule.

    sign, fixed rule     ste_identity, ste_clipped, approx_sign, swish_sign
    sign, sharpened      reste, ede, fda, rbnn
    squashed             tanh, md_tanh_s, md_softmax_s, pmf
    scaled signs         scaled_sign, irnet_weight
    contrastive          adaste, hardtanh_adaste, fenbp
    random               bernoulli_pwgf, bernoulli_hard, bernoulli_identity,
                         bayesbinn_sample, vispa_sample
    ternary              ternary_absmean, ternary_twn, ternary_fixed, ternary_tanh

The backward rules of the contrastive ones are not additive: they need the gradient of
the whole batch. All others commute with averaging and with accumulation. The random
ones take a key, and `md_softmax_s`, `pmf` and `vispa_sample` have several latents for
each weight.
"""

from adaste_jax.estimators._adaste import (
    adaste,
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
from adaste_jax.estimators._fda import fda
from adaste_jax.estimators._fenbp import fenbp, fenbp_gradient
from adaste_jax.estimators._hardtanh_adaste import (
    hardtanh_adaste,
    hardtanh_adaste_gradient,
)
from adaste_jax.estimators._irnet import ede, irnet_weight
from adaste_jax.estimators._rbnn import rbnn
from adaste_jax.estimators._reste import reste
from adaste_jax.estimators._scaled_sign import scaled_sign
from adaste_jax.estimators._softmax import md_softmax_s, pmf, softmax_deploy
from adaste_jax.estimators._ste import ste_clipped, ste_identity
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
    "adaste_slope",
    "approx_sign",
    "bayesbinn_sample",
    "bernoulli_hard",
    "bernoulli_identity",
    "bernoulli_pwgf",
    "ede",
    "fda",
    "fenbp",
    "fenbp_gradient",
    "hardtanh_adaste",
    "hardtanh_adaste_gradient",
    "irnet_weight",
    "md_softmax_s",
    "md_tanh_s",
    "pmf",
    "rbnn",
    "reste",
    "scaled_sign",
    "softmax_deploy",
    "ste_clipped",
    "ste_identity",
    "swish_sign",
    "tanh",
    "ternary_absmean",
    "ternary_fixed",
    "ternary_tanh",
    "ternary_twn",
    "vispa_probability",
    "vispa_sample",
]
