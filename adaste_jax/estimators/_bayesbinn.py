"""The samples of BayesBiNN. Its update is `optim.bayesbinn`.

Meng, Bachmann and Khan, "Training Binary Neural Networks using the Bayesian Learning
Rule", ICML 2020, https://arxiv.org/abs/2002.10778.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base, _linear


def bayesbinn_sample(
    latent: ArrayLike, *, key: jax.Array, temperature: ArrayLike
) -> jax.Array:
    """A relaxed random sign:  w = tanh((t + d) / T),  d = log(u / (1 - u)) / 2.

    u is uniform, T = `temperature`, and the latent t is half the log-odds of w = +1.
    Differentiates straight-through, h = g: take gradients at the weights and pass both
    to `optim.bayesbinn`, which applies the factor of the paper. The deployed weights
    are sign(t), or predictions are averaged over w ~ Bernoulli(sigmoid(2 t)).

    Args:
        latent: Floating point, any shape. Published with +10 and -10 at random.
        key: PRNG key of the sample. The same key gives the same sample for every leaf
            of a shape, so each leaf needs its own (`adaste_jax.binarize(..., key=key)`
            gives it one).
        temperature: T, scalar, above 0. Published: 1e-10 (MNIST, CIFAR-10), 1e-8
            (CIFAR-100). Traced values do not recompile.

    Returns:
        Weights in [-1, 1], with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `temperature` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.bayesbinn_sample(
        ...     jnp.array([-10.0, 10.0]), key=jax.random.key(0), temperature=1e-10)
        Array([-1.,  1.], dtype=float32)
    """
    _base.check_scalar("temperature", temperature, open_interval=True)
    latent = _base.check_latent(latent)
    edge = 1e-7  # the logarithm of 0 is kept away
    uniform = jax.random.uniform(
        key, latent.shape, jnp.float32, minval=edge, maxval=1 - edge
    )
    return _sample(latent, uniform, temperature)


def _weight(latent: jax.Array, uniform: jax.Array, temperature: jax.Array) -> jax.Array:
    noise = (jnp.log(uniform) - jnp.log1p(-uniform)) / 2
    return jnp.tanh((latent + noise) / temperature)


_sample = _linear.straight_through(_weight)
