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


def ste(latent: ArrayLike) -> jax.Array:
    """The straight-through estimator: maps t to sign(t), backward h = g.

    Here and in every estimator g is the gradient at the weight and h the gradient at
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
        >>> estimators.ste(latent)
        Array([-1.,  1.,  1.], dtype=float32)
        >>> jax.grad(lambda t: 3 * estimators.ste(t).sum())(latent)
        Array([3., 3., 3.], dtype=float32)
    """
    weight: jax.Array = _identity(_base.check_latent(latent))
    return weight


def ste_clipped(latent: ArrayLike, *, threshold: ArrayLike = 1.0) -> jax.Array:
    """Maps latents t to sign(t); differentiates as hard tanh:  h = g 1[|t| <= c].

    The gradient passes at the edge |t| = c too. Additive in g. It is also the usual
    estimator for binary activations.

    Args:
        latent: Floating point, any shape.
        threshold: c, at least 0, in the unit of the latents; may be traced.

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
    _base.check_scalar("threshold", threshold)
    weight: jax.Array = _clipped(_base.check_latent(latent), threshold)
    return weight


def _signs(latent: jax.Array, threshold: ArrayLike) -> jax.Array:
    del threshold
    return _numerics.sign(latent)


def _signs_and_passes(
    latent: jax.Array, threshold: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    dtype = _base.compute_dtype(latent)
    passes = jnp.abs(latent.astype(dtype)) <= jnp.asarray(threshold, dtype)
    return _numerics.sign(latent), passes


def _pass(passes: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
    # Held back is a number, not a NaN.
    return jnp.where(passes | jnp.isnan(grad), grad, jnp.zeros_like(grad)), None


# Not `_base.with_backward`: the weights of these have no derivative of their own, so
# that forward mode goes through their gradient (`jax.hessian`).
_identity = jax.custom_vjp(_numerics.sign)
_identity.defvjp(lambda latent: (_numerics.sign(latent), None), lambda _, grad: (grad,))
_clipped = jax.custom_vjp(_signs)
_clipped.defvjp(_signs_and_passes, _pass)
