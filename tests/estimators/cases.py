"""The table of estimators that the contract is tested on."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from adaste_jax import estimators
from tests import reference


@dataclasses.dataclass(frozen=True)
class Case:
    """An estimator, hyperparameters to call it with, and what holds of it.

    `other` changes hyperparameters, traced. `reference(theta, grad, **hyper)` gives the
    weight and the latent's gradient. `sign` says where weights have the sign of their
    latents: "always" (so they are never 0), "nonzero" (0 for 0), or "no".
    """

    estimator: Callable[..., jax.Array]
    hyper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    other: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reference: Callable[..., tuple[float, float]] | None = None
    sign: Literal["always", "nonzero", "no"] = "always"
    elementwise: bool = True
    odd: bool = True
    random: bool = False


def _adaste(rule, **options):
    return functools.partial(estimators.adaste_paper, rule=rule, **options)


def _adaste_reference(slope):
    return lambda theta, grad, mu, alpha: (
        reference.adaste_forward(theta, mu, alpha),
        slope(theta, grad, mu, alpha) * grad,
    )


ANNEALING = {"mu": 0.7, "alpha": 0.2}
BINARY = {"mu": 100.0, "alpha": 0.01}
KEY = jax.random.key(0)

CASES = {
    "ste": Case(estimators.ste, reference=reference.ste_identity),
    "ste_clipped": Case(
        estimators.ste_clipped,
        {"threshold": 1.0},
        {"threshold": 0.3},
        reference=reference.ste_clipped,
    ),
    "adaste_adaptive": Case(
        _adaste("adaptive"),
        ANNEALING,
        BINARY,
        reference=_adaste_reference(reference.adaste_adaptive),
    ),
    "adaste_supremum": Case(
        _adaste("supremum"),
        ANNEALING,
        BINARY,
        reference=_adaste_reference(reference.adaste_supremum),
    ),
    "adaste_released": Case(
        _adaste("released"),
        {"mu": 0.1, "alpha": 0.2},  # where its asymmetry shows
        BINARY,
        reference=_adaste_reference(reference.adaste_released),
        odd=False,
    ),
    "adaste_identity": Case(
        _adaste("identity"),
        ANNEALING,
        BINARY,
        reference=_adaste_reference(lambda *_: 1.0),
    ),
    "adaste_no_annealing": Case(
        _adaste("adaptive"),
        BINARY,
        ANNEALING,
        reference=_adaste_reference(reference.adaste_adaptive),
    ),
    "adaste_mu_zero": Case(
        _adaste("adaptive"),
        {"mu": 0.0, "alpha": 0.01},
        ANNEALING,
        reference=_adaste_reference(reference.adaste_adaptive),
    ),
    "adaste_recommended": Case(
        estimators.adaste,
        ANNEALING,
        BINARY,
        elementwise=False,
    ),
    "adaste_all_options": Case(
        _adaste("supremum"),
        {**ANNEALING, "cap": 0.7, "threshold": 1e-3},
        {"cap": 3.0, "threshold": 1.0},
    ),
    "approx_sign": Case(estimators.approx_sign, reference=reference.approx_sign),
    "swish_sign": Case(
        estimators.swish_sign,
        {"beta": 5.0},
        {"beta": 1.0},
        reference=reference.swish_sign,
    ),
    "reste": Case(
        estimators.reste,
        {"exponent": 3.0, "cut": 1.5, "floor": 0.1},
        {"exponent": 1.0, "cut": 1.1, "floor": 0.3},
        reference=reference.reste,
    ),
    "ede": Case(
        estimators.ede, {"sharpness": 0.1}, {"sharpness": 3.0}, reference=reference.ede
    ),
    "fda": Case(
        functools.partial(estimators.fda, order=2),
        {"omega": 1.5},
        {"omega": 0.7},
        reference=functools.partial(reference.fda, order=2),
    ),
    "rbnn": Case(
        estimators.rbnn,
        {"sharpness": 0.5},
        {"sharpness": 2.0},
        reference=reference.rbnn,
    ),
    "irnet_weight": Case(
        estimators.irnet_weight,
        {"sharpness": 0.5},
        {"sharpness": 4.0},
        sign="no",  # of the standardised latents
        elementwise=False,
    ),
    "biper": Case(
        estimators.biper,
        {"omega": 1.5, "stage": 1.0},
        {"omega": 0.7, "stage": 2.0},
        reference=reference.biper,
        sign="no",
    ),
    "blend": Case(estimators.blend, {"share": 0.3}, {"share": 1.0}, elementwise=False),
    "parq": Case(
        estimators.parq,
        {"inverse_slope": 0.3},
        {"inverse_slope": 0.0},
        sign="nonzero",
        elementwise=False,
    ),
    "progressive": Case(
        estimators.progressive,
        {"sharpness": 1.5},
        {"sharpness": 20.0},
        sign="nonzero",
        elementwise=False,
    ),
    "scaled_sign": Case(estimators.scaled_sign, elementwise=False),
    "scaled_sign_exact": Case(
        functools.partial(estimators.scaled_sign, scale_grad="exact"), elementwise=False
    ),
    "scaled_sign_detached": Case(
        functools.partial(estimators.scaled_sign, scale_grad="detached"),
        elementwise=False,
    ),
    "scaled_sign_diagonal": Case(
        functools.partial(estimators.scaled_sign, scale_grad="diagonal", axis=None),
        elementwise=False,
    ),
    "reste_scaled": Case(
        lambda latent, exponent: estimators.scaled_sign(
            latent,
            axis=None,
            scale_grad="exact",
            estimator=functools.partial(estimators.reste, exponent=exponent),
        ),
        {"exponent": 3.0},
        {"exponent": 1.0},
        elementwise=False,
    ),
    "tanh": Case(
        estimators.tanh,
        {"beta": 1.0},
        {"beta": 50.0},
        reference=reference.tanh,
        sign="nonzero",
    ),
    "md_tanh_s": Case(
        estimators.md_tanh_s,
        {"beta": 1.0},
        {"beta": 50.0},
        reference=reference.md_tanh_s,
        sign="nonzero",
    ),
    "hardtanh_adaste": Case(
        estimators.hardtanh_adaste, reference=reference.hardtanh_adaste, sign="nonzero"
    ),
    "fenbp_tanh": Case(
        estimators.fenbp,
        {"beta": 2.0},
        {"beta": 0.3},
        reference=functools.partial(reference.fenbp, squash=math.tanh),
        sign="nonzero",
    ),
    "fenbp_hardtanh": Case(
        functools.partial(estimators.fenbp, squash=jax.nn.hard_tanh),
        {"beta": 10.0},
        {"beta": 1.0},
        reference=functools.partial(reference.fenbp, squash=reference.hardtanh),
        sign="nonzero",
    ),
    "bernoulli_pwgf": Case(
        functools.partial(estimators.bernoulli_pwgf, key=KEY), sign="no", random=True
    ),
    "bernoulli_hard": Case(
        functools.partial(estimators.bernoulli_hard, key=KEY), sign="no", random=True
    ),
    "bernoulli_identity": Case(
        functools.partial(estimators.bernoulli_identity, key=KEY),
        sign="no",
        random=True,
    ),
    "bayesbinn_sample": Case(
        functools.partial(estimators.bayesbinn_sample, key=KEY),
        {"temperature": 1.0},
        {"temperature": 1e-10},
        sign="no",
        random=True,
    ),
    "per_group": Case(
        lambda latent: estimators.per_group(
            functools.partial(estimators.scaled_sign, scale_grad="exact"),
            max(1, jnp.shape(latent)[0]),
            axis=0,
        )(latent),
        elementwise=False,
    ),
    "per_group_ternary": Case(
        lambda latent, ratio: estimators.per_group(
            estimators.ternary_twn, max(1, jnp.shape(latent)[0]), axis=0
        )(latent, ratio=ratio),
        {"ratio": 0.7},
        {"ratio": 0.1},
        sign="no",
        elementwise=False,
    ),
    "ternary_absmean": Case(
        estimators.ternary_absmean,
        {"epsilon": 1e-5},
        {"epsilon": 10.0},
        sign="no",
        elementwise=False,
    ),
    "ternary_twn": Case(
        functools.partial(estimators.ternary_twn, scale=False),
        {"ratio": 0.7},
        {"ratio": 0.1},
        sign="no",
        elementwise=False,
    ),
    "ternary_twn_scaled": Case(
        estimators.ternary_twn,
        {"ratio": 0.7},
        {"ratio": 0.1},
        sign="no",
        elementwise=False,
    ),
    "ternary_fixed": Case(
        estimators.ternary_fixed,
        {"threshold": 0.05},
        {"threshold": 0.5},
        reference=reference.ternary_fixed,
        sign="no",
    ),
    "ternary_tanh": Case(
        functools.partial(estimators.ternary_tanh, straight_through=False),
        {"beta": 1.0},
        {"beta": 10.0},
        reference=reference.ternary_tanh,
        sign="nonzero",
    ),
    "ternary_tanh_straight": Case(
        estimators.ternary_tanh, {"beta": 1.0}, {"beta": 10.0}, sign="nonzero"
    ),
}
