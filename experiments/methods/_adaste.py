"""AdaSTE: as recommended, as in the paper, and as released."""

import functools
from typing import Any

import optax

from adaste_jax import estimators, optim
from experiments.methods import _parts
from experiments.methods._base import Length, Method, enter


@enter("adaste", learning_rate=3e-3, **_parts.ANNEALING)
def _adaste(options: Any, length: Length) -> Method:
    """The recommended form: see `estimators.adaste`."""
    mu, soft_steps = _parts.annealing(options, length)
    return Method(
        tx=optim.adaste(_parts.cosine(options, length), mu=mu, alpha=options.alpha),
        estimator=functools.partial(
            estimators.adaste,
            alpha=options.alpha,
            rule="identity",
            unit="rms",
            rescale=True,
        ),
        hyperparameters={"mu": mu},
        soft_steps=soft_steps,
    )


@enter(
    "adaste_literal", learning_rate=3e-3, rule="adaptive", cap=0.5, **_parts.ANNEALING
)
def _adaste_literal(options: Any, length: Length) -> Method:
    """The paper's rule, on the gradient of each minibatch as it comes."""
    mu, soft_steps = _parts.annealing(options, length)
    return Method(
        tx=_parts.adam(options, length),
        estimator=functools.partial(
            estimators.adaste,
            alpha=options.alpha,
            rule=options.rule,
            cap=options.cap,
        ),
        hyperparameters={"mu": mu},
        soft_steps=soft_steps,
    )


@enter(
    "adaste_averaged",
    learning_rate=30.0,
    momentum=0.99,
    rule="adaptive",
    cap=2.0,
    away=1.0,
    **_parts.ANNEALING,
)
def _adaste_averaged(options: Any, length: Length) -> Method:
    """The same rule, on a moving average of the gradient; weights are signs.

    With soft weights it loses 4 points more: docs/results/adaptive_rule.md.
    """
    mu, _ = _parts.annealing(options, length)
    return Method(
        tx=optax.chain(
            optax.ema(options.momentum),
            optim.scale_by_adaste(
                mu,
                alpha=options.alpha,
                rule=options.rule,
                cap=options.cap,
                away=options.away,
            ),
            optax.scale_by_learning_rate(_parts.cosine(options, length)),
        ),
        estimator=estimators.ste_identity,
    )


@enter(
    "adaste_released",
    learning_rate=3e-4,
    momentum=0.9,
    decay=1.0,
    multiplier=10.0,
    alpha=0.01,
    mu_init=0.01,
    mu_rate=1.05,
    rule="released",
    initial_latent=10.0,
    deployed_pass=True,
)
def _adaste_released(options: Any, length: Length) -> Method:
    """The authors' code; N is `num_examples` times `multiplier`.

    The learning rate falls on a cosine of the epoch.
    """
    mu = optim.anneal(
        options.mu_init, options.mu_rate, 1 / options.alpha, length.steps_per_epoch
    )
    rate = optim.cosine_per_epoch(
        options.learning_rate, length.num_epochs, length.steps_per_epoch
    )
    tx = optim.adaste_released(
        _parts.warmed_up(rate, length),
        mu=mu,
        grad_scale=(options.multiplier * length.num_examples) ** 2,
        alpha=options.alpha,
        rule=options.rule,
        momentum=options.momentum,
        decay=options.decay,
    )
    return Method(
        tx=tx,
        estimator=functools.partial(
            estimators.adaste, alpha=options.alpha, rule="identity"
        ),
        hyperparameters={"mu": mu},
        initial_latents=_parts.random_signs(options.initial_latent),
        loaded_latents=_parts.signs(options.initial_latent),
        deployed_pass=options.deployed_pass,
    )
