"""Soft weights, which never become quite binary; most sharpen with the steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaste_jax import estimators, optim
from experiments.methods import _parts
from experiments.methods._base import Length, Method, enter


@enter("tanh", learning_rate=1e-2, beta_end=30.0, anneal_fraction=0.8)
def _tanh(options: Any, length: Length) -> Method:
    return annealed(options, length, estimators.tanh)


@enter("md_tanh_s", learning_rate=1e-2, beta_end=1e3, anneal_fraction=0.8)
def _md_tanh_s(options: Any, length: Length) -> Method:
    return annealed(options, length, estimators.md_tanh_s)


@enter("md_softmax_s", learning_rate=1e-2, beta_end=1e3, anneal_fraction=0.8)
def _md_softmax_s(options: Any, length: Length) -> Method:
    return _pairs(annealed(options, length, estimators.md_softmax_s))


@enter("pmf", learning_rate=1e-2, beta_end=30.0, anneal_fraction=0.8, jacobian="exact")
def _pmf(options: Any, length: Length) -> Method:
    estimator = functools.partial(estimators.pmf, jacobian=options.jacobian)
    return _pairs(annealed(options, length, estimator))


@enter("md_tanh", learning_rate=3e-3, beta_end=100.0, anneal_fraction=0.8)
def _md_tanh(options: Any, length: Length) -> Method:
    """The direct form: beta multiplies the steps, and not the latents."""
    return Method(
        tx=optim.md_tanh(
            _parts.cosine(options, length), beta=_parts.growth(options, length)
        ),
        estimator=functools.partial(estimators.md_tanh_s, beta=1.0),
        soft_steps=length.never,
    )


@enter("md_softmax", learning_rate=3e-3, beta_end=100.0, anneal_fraction=0.8)
def _md_softmax(options: Any, length: Length) -> Method:
    return _pairs(
        Method(
            tx=optim.md_softmax(
                _parts.cosine(options, length), beta=_parts.growth(options, length)
            ),
            estimator=functools.partial(estimators.md_softmax_s, beta=1.0),
            soft_steps=length.never,
        )
    )


@enter("hardtanh_adaste", learning_rate=1e-2)
def _hardtanh_adaste(options: Any, length: Length) -> Method:
    return Method(
        tx=optax.chain(optim.scale_by_hardtanh_adaste(), _parts.adam(options, length)),
        estimator=functools.partial(estimators.hardtanh_adaste, straight_through=True),
        soft_steps=length.never,
    )


@enter("fenbp", learning_rate=1e-2, beta=100.0)
def _fenbp(options: Any, length: Length) -> Method:
    estimator = functools.partial(
        estimators.fenbp, beta=options.beta, straight_through=True
    )
    return Method(
        tx=optax.chain(
            optim.scale_by_fenbp(options.beta), _parts.adam(options, length)
        ),
        estimator=estimator,
        soft_steps=length.never,
    )


def annealed(
    options: Any, length: Length, estimator: Callable[..., jax.Array]
) -> Method:
    """Weights that become binary as beta grows, but never quite."""
    return Method(
        tx=_parts.adam(options, length),
        estimator=estimator,
        hyperparameters={"beta": _parts.growth(options, length)},
        soft_steps=length.never,
    )


def _pairs(method: Method) -> Method:
    """Two latents for each weight, equal and opposite to begin with."""
    opposite = lambda key, latent: jnp.stack([-latent, latent], axis=-1)
    return dataclasses.replace(
        method,
        initial_latents=opposite,
        loaded_latents=opposite,
        deploy=estimators.softmax_deploy,
    )
