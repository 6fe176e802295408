"""Activations on 255 levels, one scale for a token.

Wang, Ma, Dong, Huang, Zhang and Wei, "BitNet: Scaling 1-bit Transformers for Large
Language Models", 2023, https://arxiv.org/abs/2310.11453; the form without a shift, for
a token: Ma et al., "The Era of 1-bit LLMs", 2024, https://arxiv.org/abs/2402.17764.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax.estimators import _base


def int8_per_token(inputs: ArrayLike, *, group: int = 0) -> jax.Array:
    """Maps activations x to s round(x / s), with s = max |x| / 127; backward h = g.

    For the inputs of a product with one-bit weights, as an `input_estimator`: what it
    is trained with is then what an engine computes that multiplies integers. llama.cpp
    has one s for 32 inputs where weights are binary (Q1_0) and one for 256 where they
    are ternary (TQ1_0, TQ2_0). Additive in g.

    Args:
        inputs: Floating point [..., features]; each row of features is a token.
        group: Neighbouring features with one scale; 0 for all of a token.

    Returns:
        Numbers of the shape and dtype of `inputs`; a group of zeros stays 0.

    Raises:
        TypeError: If `inputs` are not floating point.
        ValueError: If they have no axis, or `group` is negative or does not divide the
            number of features.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.int8_per_token(jnp.array([[127.0, 2.4, -0.6], [0.0, 0.0, 0.0]]))
        Array([[127.,   2.,  -1.],
               [  0.,   0.,   0.]], dtype=float32)
    """
    array = _base.check_latent(inputs)
    if not array.ndim:
        raise ValueError("`inputs` must be of shape [..., features], got a number.")
    features = array.shape[-1]
    if group < 0 or (group and features % group):
        raise ValueError(
            f"`group` must be 0 or divide the {features} features, got {group}."
        )
    if not array.size:
        return array
    grouped = array.reshape(*array.shape[:-1], -1, group or features)
    rounded: jax.Array = _rounded(grouped).reshape(array.shape)
    return rounded


def _levels(x: jax.Array) -> jax.Array:
    wide = x.astype(_base.compute_dtype(x))
    step = jnp.max(jnp.abs(wide), axis=-1, keepdims=True) / 127
    step = jnp.where(step == 0, jnp.ones_like(step), step)
    return (jnp.round(wide / step) * step).astype(x.dtype)


_rounded = jax.custom_vjp(_levels)
_rounded.defvjp(lambda x: (_levels(x), None), lambda _, grad: (grad,))
