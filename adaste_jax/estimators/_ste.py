"""The straight-through estimator: the sign forward, the identity backward.

Hinton, "Neural Networks for Machine Learning", Coursera lecture 9c, 2012; Bengio,
Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
for Conditional Computation", 2013, https://arxiv.org/abs/1308.3432. The clipped form:
Hubara, Courbariaux, Soudry, El-Yaniv and Bengio, "Binarized Neural Networks", NeurIPS
2016, https://arxiv.org/abs/1602.02830.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base


def ste_identity(latent: ArrayLike) -> jax.Array:
    """Maps latents t to sign(t), +1 at 0; differentiates as w = t:  h = g.

    Here and in every estimator g is the gradient at the weight and h the one handed to
    the latent. Additive in g.

    Args:
        latent: Floating point, any shape. BinaryConnect clips it to [-1, 1] after each
            step of the optimiser.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> latent = jnp.array([-1.5, 0.0, 2.0])
        >>> estimators.ste_identity(latent)
        Array([-1.,  1.,  1.], dtype=float32)
        >>> jax.grad(lambda t: 3 * estimators.ste_identity(t).sum())(latent)
        Array([3., 3., 3.], dtype=float32)
    """
    return _straight_through(_base.check_latent(latent))


def ste_clipped(latent: ArrayLike, *, threshold: ArrayLike = 1.0) -> jax.Array:
    """Maps latents t to sign(t); differentiates as hard tanh:  h = g 1[|t| <= c].

    The edge |t| = c passes the gradient. Additive in g. Also the usual
    estimator of binary activations.

    Args:
        latent: Floating point, any shape.
        threshold: The c above, at least 0, in the unit of the latents; may be traced.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `threshold` is negative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.ste_clipped(t).sum())(
        ...     jnp.array([-1.5, -1.0, 0.5]))
        Array([0., 1., 1.], dtype=float32)
    """
    _base.check_scalar("threshold", threshold, low=0.0, high=float("inf"))
    return _ste(_base.check_latent(latent), threshold)


@jax.custom_vjp
def _straight_through(latent: jax.Array) -> jax.Array:
    return _numerics.sign(latent)


_straight_through.defvjp(
    lambda latent: (_numerics.sign(latent), None), lambda _, grad: (grad,)
)


@jax.custom_vjp
def _ste(latent: jax.Array, threshold: ArrayLike) -> jax.Array:
    del threshold
    return _numerics.sign(latent)


def _ste_forward(latent, threshold):
    dtype = _base.compute_dtype(latent)
    passes = jnp.abs(latent.astype(dtype)) <= jnp.asarray(threshold, dtype)
    return _numerics.sign(latent), passes


def _ste_backward(passes, grad):
    # Held back is a number, not a NaN.
    return jnp.where(passes | jnp.isnan(grad), grad, jnp.zeros_like(grad)), None


_ste.defvjp(_ste_forward, _ste_backward)
