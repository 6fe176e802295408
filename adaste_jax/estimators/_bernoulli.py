"""Random signs, and three ways to differentiate through them.

Courbariaux, Bengio and David, "BinaryConnect: Training Deep Neural Networks with Binary
Weights during Propagations", NeurIPS 2015, https://arxiv.org/abs/1511.00363
(`bernoulli_hard`); Cheng, Liu, Li, Shen, Henao and Carin, "Straight-Through Estimator
as Projected Wasserstein Gradient Flow", 2019, https://arxiv.org/abs/1910.02176
(`bernoulli_pwgf`); Bengio, Léonard and Courville, 2013, https://arxiv.org/abs/1308.3432
(`bernoulli_identity`).

A sample is w = +1 with probability p(t), else -1. All rules are additive in g. With
several samples, average their losses; that also averages the gradients:

    losses = jax.vmap(lambda key: loss(binarize(params, bernoulli_pwgf, key=key)))(
        jax.random.split(key, num_samples))

The deployed weights are sign(t), or predictions are averaged over samples.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear

Probability = Literal["sigmoid", "hard"]


def bernoulli_pwgf(latent: ArrayLike, *, key: jax.Array) -> jax.Array:
    """Random signs with p = sigmoid(t); differentiates as their mean.

        h = 2 p (1 - p) g

    The projected Wasserstein gradient flow: each sample moves along -g, and the mean of
    the moved samples is matched. h is an unbiased gradient of the expected loss if the
    loss has no square of a single weight.

    Args:
        latent: Floating point, any shape.
        key: PRNG key of the sample. The same key gives the same sample for every leaf
            of a shape, so each leaf needs its own (`adaste_jax.binarize(..., key=key)`
            gives it one).

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.bernoulli_pwgf(jnp.array([-30.0, 30.0]), key=jax.random.key(0))
        Array([-1.,  1.], dtype=float32)
    """
    latent = _base.check_latent(latent)
    return _pwgf(latent, _uniform(latent, key))


def bernoulli_hard(latent: ArrayLike, *, key: jax.Array) -> jax.Array:
    """Random signs with p = clip((t + 1) / 2, 0, 1); differentiates as `ste_clipped`.

    BinaryConnect in its stochastic form: h = g 1[|t| <= 1], including the edge. The
    paper clips latents to [-1, 1] and evaluates with the latents themselves as weights.

    Args:
        latent: Floating point, any shape.
        key: PRNG key; use a new one for every tensor and step.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.bernoulli_hard(jnp.array([-1.0, 1.0]), key=jax.random.key(0))
        Array([-1.,  1.], dtype=float32)
    """
    latent = _base.check_latent(latent)
    return _hard(latent, _uniform(latent, key))


def bernoulli_identity(
    latent: ArrayLike, *, key: jax.Array, probability: Probability = "sigmoid"
) -> jax.Array:
    """Random signs; differentiates straight-through:  h = g.

    Args:
        latent: Floating point, any shape.
        key: PRNG key; use a new one for every tensor and step.
        probability: p, `"sigmoid"` of t or `"hard"`, which is clip((t + 1) / 2, 0, 1).

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `probability` is unknown.

    Example:
        >>> import functools, jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimator = functools.partial(
        ...     estimators.bernoulli_identity, key=jax.random.key(0))
        >>> jax.grad(lambda t: estimator(t).sum())(jnp.array([-9.0, 0.0]))
        Array([1., 1.], dtype=float32)
    """
    _base.check_choice("probability", probability, get_args(Probability))
    latent = _base.check_latent(latent)
    straight = _straight if probability == "sigmoid" else _straight_hard
    return straight(latent, _uniform(latent, key))


def _uniform(latent: jax.Array, key: jax.Array) -> jax.Array:
    # In float32 always, so that one key gives one sample in every precision.
    return jax.random.uniform(key, latent.shape, jnp.float32)


def _hard_sigmoid(latent: jax.Array) -> jax.Array:
    return jnp.clip((latent + 1) / 2, 0, 1)


def _sample(probability: _linear.Elementwise) -> _linear.Elementwise:
    """The forward map, with uniform random numbers as a second argument."""

    def weight(latent: jax.Array, uniform: jax.Array) -> jax.Array:
        one, chance = jnp.ones((), latent.dtype), probability(latent)
        # A probability that is NaN is its own sample.
        below = jnp.where(uniform >= chance, -one, chance)
        return jnp.where(uniform < chance, one, below)

    return weight


def _pwgf_slope(latent: jax.Array, uniform: jax.Array) -> jax.Array:
    return 2 * jax.nn.sigmoid(latent) * jax.nn.sigmoid(-latent)


_pwgf = _linear.linear(_sample(jax.nn.sigmoid), _pwgf_slope)
_hard = _linear.linear(_sample(_hard_sigmoid), _linear.inside)
_straight = _linear.straight_through(_sample(jax.nn.sigmoid))
_straight_hard = _linear.straight_through(_sample(_hard_sigmoid))
