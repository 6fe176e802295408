"""Two latents for each weight, one for each of its levels -1 and +1.

`md_softmax_s`: Ajanthan, Gupta, Torr, Hartley and Dokania, "Mirror Descent View for
Neural Network Quantization", AISTATS 2021, https://arxiv.org/abs/1910.08237. `pmf`:
Ajanthan, Dokania, Hartley and Torr, "Proximal Mean-field for Neural Network
Quantization", ICCV 2019, https://arxiv.org/abs/1812.04353.

The last axis of a latent has the two entries (a, b), and

    (p, q) = softmax(beta (a, b)),   w = q - p = tanh(beta (b - a) / 2).

The deployed weight is +1 if b >= a, else -1: `softmax_deploy`.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base
from adaste_jax.estimators._tanh import BETA_MAX

Jacobian = Literal["exact", "published"]


def md_softmax_s(latent: ArrayLike, *, beta: ArrayLike) -> jax.Array:
    """Maps pairs of latents to w = q - p; differentiates straight-through: h = (-g, g).

    Mirror descent on the simplex, in its stable form. With beta = 1 the latents are the
    logits that `optim.md_softmax` trains. Additive in g.

    Args:
        latent: Floating point, shape `[..., 2]`.
        beta: Scalar, at least 0; taken as 1e35 beyond that. Traced values do not
            recompile. It grows in training.

    Returns:
        Weights in [-1, 1], of shape `[...]` and the dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If its last axis does not have two entries, or `beta` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.md_softmax_s(jnp.array([[0.0, 0.0], [9.0, 1.0]]), beta=5.0)
        Array([ 0., -1.], dtype=float32)
    """
    return _softmax("straight_through", _pairs(latent), _checked(beta))


def pmf(
    latent: ArrayLike, *, beta: ArrayLike, jacobian: Jacobian = "exact"
) -> jax.Array:
    """Maps pairs of latents to w = q - p; differentiates through the softmax.

    Proximal mean-field. With u = (p, q) and g_u = (-g, g),

        exact      h = beta u * (g_u - <u, g_u>)      (* entry by entry)
        published  h = beta (g_u - <u, g_u> u)        what the authors' code computes

    Additive in g.

    Args:
        latent: Logits of the levels -1 and +1, of shape `[..., 2]`.
        beta: Sharpness, at least 0; may be traced.
        jacobian: `"exact"` or `"published"`.

    Returns:
        Weights in [-1, 1], of shape `[...]` and the dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If the last axis of `latent` does not have two entries, `beta` is
            negative, or `jacobian` is unknown.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> jax.grad(lambda t: estimators.pmf(t, beta=1.0).sum())(jnp.zeros((1, 2)))
        Array([[-0.5,  0.5]], dtype=float32)
    """
    _base.check_choice("jacobian", jacobian, get_args(Jacobian))
    return _softmax(jacobian, _pairs(latent), _checked(beta))


def softmax_deploy(latent: ArrayLike) -> jax.Array:
    """The weights that are shipped: +1 where b >= a, else -1, of shape `[...]`.

    Args:
        latent: Pairs (a, b) of latents, floating point, shape `[..., 2]`.

    Returns:
        Weights +1 and -1, in the dtype of `latent`.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If its last axis does not have two entries.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.softmax_deploy(jnp.array([[0.2, 0.1], [0.0, 0.0]]))
        Array([-1.,  1.], dtype=float32)
    """
    latent = _pairs(latent)
    return _numerics.sign(latent[..., 1] - latent[..., 0])


def _pairs(latent: ArrayLike) -> jax.Array:
    array = _base.check_latent(latent)
    if array.ndim == 0 or array.shape[-1] != 2:
        raise ValueError(
            "the last axis of the latents must have two entries, for the levels -1 and "
            f"+1, got the shape {array.shape}."
        )
    return array


def _checked(beta: ArrayLike) -> ArrayLike:
    _base.check_scalar("beta", beta)
    return beta


def _half_gap(latent: jax.Array, beta: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The argument of the tanh, without overflow."""
    latents = latent.astype(_base.compute_dtype(latent))
    beta = jnp.minimum(jnp.asarray(beta, latents.dtype), BETA_MAX)
    half_gap = latents[..., 1] / 2 - latents[..., 0] / 2
    return jnp.clip(beta * half_gap, -50, 50), beta


def _weights(form: str, latent: jax.Array, beta: ArrayLike) -> jax.Array:
    del form
    return jnp.tanh(_half_gap(latent, beta)[0]).astype(latent.dtype)


def _backward(
    form: str, residuals: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, None]:
    x, beta = residuals
    p, q = jax.nn.sigmoid(-2 * x), jax.nn.sigmoid(2 * x)
    g = grad.astype(x.dtype)
    if form == "straight_through":
        pair = (-g, g)
    elif form == "exact":
        pair = (-2 * beta * p * q * g, 2 * beta * p * q * g)
    else:
        # <u, g_u> = (q - p) g
        pair = (-beta * (1 + (q - p) * p) * g, beta * (1 - (q - p) * q) * g)
    return jnp.stack(pair, axis=-1).astype(grad.dtype), None


# The residual is half the gap, not the weight: where w is near 1, 1 - w cancels.
_softmax = _base.with_backward(
    _weights, lambda form, *arrays: _half_gap(*arrays), _backward, static=1
)
