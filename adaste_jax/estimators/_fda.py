"""FDA, the derivative of a Fourier series of the sign.

Xu, Han, Xu, Tang, Xu and Wang, "Learning Frequency Domain Approximation for Binary
Neural Networks", NeurIPS 2021, https://arxiv.org/abs/2103.00841. Only the series is
implemented; the paper's noise adaptation module is a separate layer.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _linear


def fda(latent: ArrayLike, *, order: int, omega: ArrayLike = math.pi / 2) -> jax.Array:
    """Maps latents t to sign(t); differentiates as a square wave's Fourier series.

    With n = `order`, the slope is (4 omega / pi) sum_{i=0..n} cos((2 i + 1) omega t).
    It is negative in places, and periodic. Additive in g.

    Args:
        latent: Floating point, any shape.
        order: Index of the last term, at least 0; a Python number.
        omega: Frequency of the first term, scalar. May be traced.

    Returns:
        Weights +1 and -1, with the shape and dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `order` is negative.

    Example:
        >>> import jax
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.fda(t, order=1))(0.0)
        Array(4., dtype=float32)
    """
    _base.check_scalar("order", order)
    return _fda(order)(latent, omega)


@functools.cache
def _fda(order: int) -> Callable[..., jax.Array]:
    def slope(latent: jax.Array, omega: jax.Array) -> jax.Array:
        largest = _numerics.largest(latent.dtype)  # the cosine of infinity is NaN

        def cosine(i: int) -> jax.Array:
            return jnp.cos(jnp.clip((2 * i + 1) * omega * latent, -largest, largest))

        total = sum(map(cosine, range(order + 1)), start=jnp.zeros((), latent.dtype))
        return 4 / math.pi * omega * total

    return _linear.of_sign(slope)
