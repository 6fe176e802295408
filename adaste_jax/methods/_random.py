"""Weights that are drawn at random in every step; shipped weights are not random."""

import functools
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from adaste_jax import estimators, optim
from adaste_jax.methods import _build
from adaste_jax.methods._build import build
from adaste_jax.methods._method import NEVER, Method, Rate, Run, check, length_of

_DRAWN: dict[str, Any] = {"binary_from": NEVER, "random": True}


def binary_connect_random(
    steps: int, *, learning_rate: Rate = 3e-3, **run: Unpack[Run]
) -> Method:
    """BinaryConnect with random weights; latents start uniform in [-1, 1].

        w = +1 with probability clip((t + 1) / 2, 0, 1), else -1,   h = g 1[|t| <= 1]

    Signs are shipped; the paper evaluates the latents themselves. Courbariaux, Bengio
    and David, NeurIPS 2015, https://arxiv.org/abs/1511.00363; see
    `estimators.bernoulli_hard` and `optim.binary_connect`. Learning rates around the
    default are measured in docs/results/compare_digits.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run),
        learning_rate,
        estimators.bernoulli_hard,
        tx=optim.binary_connect,
        starts=(_build.uniform, None),
        **_DRAWN,
    )


def bernoulli_pwgf(
    steps: int, *, learning_rate: Rate = 0.3, **run: Unpack[Run]
) -> Method:
    """Random signs, trained by the projected Wasserstein gradient flow.

        w = +1 with probability p = sigmoid(t), else -1,   h = 2 p (1 - p) g

    Latents with Glorot initialisation leave p near 1/2, so learning rates are large.
    Cheng et al., 2019, https://arxiv.org/abs/1910.02176; see
    `estimators.bernoulli_pwgf`. Learning rates around the default are measured in
    docs/results/learning_rates.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run), learning_rate, estimators.bernoulli_pwgf, **_DRAWN
    )


def bernoulli_identity(
    steps: int, *, learning_rate: Rate = 3.0, **run: Unpack[Run]
) -> Method:
    """Random signs, with a straight-through backward rule.

        w = +1 with probability p = sigmoid(t), else -1,   h = g

    Bengio, Léonard and Courville, 2013, https://arxiv.org/abs/1308.3432; see
    `estimators.bernoulli_identity`. Learning rates around the default are measured in
    docs/results/learning_rates.md.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    return build(
        length_of(steps, run), learning_rate, estimators.bernoulli_identity, **_DRAWN
    )


def bayesbinn(
    steps: int,
    *,
    learning_rate: Rate = 3e-4,
    temperature: float = 1e-10,
    momentum: float = 0.0,
    multiplier: float = 1.0,
    initial_latent: float = 10.0,
    **run: Unpack[Run],
) -> Method:
    """BayesBiNN, the Bayesian learning rule: latents are natural parameters.

        w = tanh((t + d) / T),   t <- (1 - lr) t - lr N s g

    with a draw d and the factor s of `optim.bayesbinn`. N is `num_examples` times
    `multiplier`. Meng, Bachmann and Khan, ICML 2020, https://arxiv.org/abs/2002.10778.
    Defaults are those published for CIFAR-10, except `multiplier`.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        temperature: T, greater than 0.
        momentum: Coefficient of the average of the gradient, in [0, 1).
        multiplier: Factor of the number of examples; published is 10 for CIFAR.
        initial_latent: Latents start at plus or minus this value, at random.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
    check(multiplier > 0, "multiplier", multiplier, "greater than 0")
    length = length_of(steps, run)
    return build(
        length,
        learning_rate,
        functools.partial(estimators.bayesbinn_sample, temperature=temperature),
        tx=lambda rate: optim.bayesbinn(
            rate,
            num_examples=multiplier * length.examples,
            temperature=temperature,
            momentum=momentum,
        ),
        starts=(_build.random_signs(initial_latent), _build.signs(initial_latent)),
        **_DRAWN,
    )


def vispa(
    steps: int,
    *,
    learning_rate: Rate = 30.0,
    momentum: float = 0.9,
    rank: int = 8,
    **run: Unpack[Run],
) -> Method:
    """VISPA: signs of correlated Gaussians; `rank` + 1 latents for each weight.

        w = sign(m + <z, r>),   latents (m, z) of norm 1,   sign(m) is shipped

    r is normal, one draw for a whole tensor. Orecchia et al., NeurIPS 2024,
    https://openreview.net/forum?id=cIXETwTkhK; see `estimators.vispa_sample` and
    `optim.vispa`. Learning rates around the default are measured in
    docs/results/compare_digits.md. The published learning rate is 0.1, for 500 epochs.

    Args:
        steps: Training steps of the run.
        learning_rate: Learning rate of the latents.
        momentum: Coefficient of the average of the gradient, in [0, 1).
        rank: Number of factors z of each weight, at least 1.
        **run: Keywords that every method takes; `adaste_jax.methods` lists them.
    """
    check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
    check(rank >= 1, "rank", rank, "at least 1")

    def start(key: jax.Array, leaf: jax.Array) -> jax.Array:
        draw = jax.random.normal(key, (*leaf.shape, rank), leaf.dtype)
        factors = jnp.std(leaf) * draw / 10
        return jnp.concatenate([leaf[..., None], factors], axis=-1)

    return build(
        length_of(steps, run),
        learning_rate,
        estimators.vispa_sample,
        tx=functools.partial(optim.vispa, momentum=momentum),
        deploy=lambda latent: estimators.ste(latent[..., 0]),
        starts=(start, start),
        **_DRAWN,
    )
