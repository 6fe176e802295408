"""Weights that are drawn anew in every step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adaste_jax import estimators, optim
from experiments.methods import _parts
from experiments.methods._base import Length, Method, enter


@enter("binary_connect_random", learning_rate=3e-3)
def _binary_connect_random(options: Any, length: Length) -> Method:
    """The stochastic form; tested with signs here, and not with the latents."""
    return Method(
        tx=optim.binary_connect(_parts.cosine(options, length)),
        estimator=estimators.bernoulli_hard,
        initial_latents=_parts.uniform,
        random_weights=True,
        soft_steps=length.never,
    )


@enter("bernoulli_pwgf", learning_rate=0.1)
def _bernoulli_pwgf(options: Any, length: Length) -> Method:
    return _bernoulli(options, length, estimators.bernoulli_pwgf)


@enter("bernoulli_identity", learning_rate=0.1)
def _bernoulli_identity(options: Any, length: Length) -> Method:
    return _bernoulli(options, length, estimators.bernoulli_identity)


@enter(
    "bayesbinn",
    learning_rate=3e-4,
    temperature=1e-10,
    momentum=0.0,
    multiplier=1.0,
    initial_latent=10.0,
)
def _bayesbinn(options: Any, length: Length) -> Method:
    """N is `num_examples` times `multiplier`."""
    tx = optim.bayesbinn(
        _parts.cosine(options, length),
        num_examples=options.multiplier * length.num_examples,
        temperature=options.temperature,
        momentum=options.momentum,
    )
    return Method(
        tx=tx,
        estimator=functools.partial(
            estimators.bayesbinn_sample, temperature=options.temperature
        ),
        initial_latents=_parts.random_signs(options.initial_latent),
        loaded_latents=_parts.signs(options.initial_latent),
        random_weights=True,
        soft_steps=length.never,
    )


@enter("vispa", learning_rate=30.0, momentum=0.9, rank=8)
def _vispa(options: Any, length: Length) -> Method:
    """Correlated draws of weights; `rank` + 1 latents for each. Tested with signs.

    The published learning rate is 0.1, for 500 epochs.
    """

    def initial(key: jax.Array, latent: jax.Array) -> jax.Array:
        draw = jax.random.normal(key, (*latent.shape, options.rank), latent.dtype)
        factors = jnp.std(latent) * draw / 10
        return jnp.concatenate([latent[..., None], factors], axis=-1)

    return Method(
        tx=optim.vispa(_parts.cosine(options, length), momentum=options.momentum),
        estimator=estimators.vispa_sample,
        initial_latents=initial,
        loaded_latents=initial,
        deploy=lambda latent: estimators.ste_identity(latent[..., 0]),
        random_weights=True,
        soft_steps=length.never,
    )


def _bernoulli(
    options: Any, length: Length, estimator: Callable[..., jax.Array]
) -> Method:
    """Signs, each with a probability that its latent sets."""
    return Method(
        tx=_parts.adam(options, length),
        estimator=estimator,
        random_weights=True,
        soft_steps=length.never,
    )
