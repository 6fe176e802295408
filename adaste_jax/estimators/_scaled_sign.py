"""Signs scaled by the mean magnitude of their group.

Rastegari, Ordonez, Redmon and Farhadi, "XNOR-Net: ImageNet Classification Using Binary
Convolutional Neural Networks", ECCV 2016, https://arxiv.org/abs/1603.05279, and a later
form: the magnitude-aware sign of Liu et al., "Bi-Real Net", ECCV 2018,
https://arxiv.org/abs/1808.00278.
"""

from typing import Literal, get_args

import jax
from jax.typing import ArrayLike

from adaste_jax import _numerics
from adaste_jax.estimators import _base, _ste

ScaleGrad = Literal["constant", "detached", "exact", "diagonal"]


def scaled_sign(
    latent: ArrayLike,
    *,
    axis: int | None = -1,
    scale_grad: ScaleGrad = "constant",
    estimator: _base.Estimator = _ste.ste_clipped,
) -> jax.Array:
    """Maps latents t to a sign(t), with a = mean |t| over each group.

    Four backward rules have nearly the same name. With c the slope of `estimator`
    (1[|t| <= 1] by default), n the size of a group and sums over the group,

        constant   h = a c g                                 magnitude-aware sign
        detached   h = c g                                   released Bi-Real net
        exact      h = a c g + sign(t) (sum_j g_j sign(t_j)) / n
        diagonal   h = (a c + 1/n) g                         as printed for XNOR-Net

    Additive in g. After training the scale can be folded into the next layer. Released
    XNOR-Net training also subtracts the mean over input channels from the latents and
    clips them to [-1, 1] before each forward pass, and multiplies h by
    n (1 - 1 / in_channels); that is a recipe, not part of the estimator.

    Args:
        latent: Floating point, at least one axis unless `axis` is None.
        axis: Axis of the output channels, each of which is a group (the last axis of a
            Flax kernel); None for one group.
        scale_grad: The backward rule, one of the four above.
        estimator: Elementwise map from `estimators` with weights +1 and -1; its slope
            is c.

    Returns:
        Weights a and -a, with the shape and dtype of `latent`. Zero only in a group of
        zeros.

    Raises:
        TypeError: If `latent` is not floating point.
        ValueError: If `scale_grad` is unknown, or `latent` has no such `axis`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> estimators.scaled_sign(jnp.array([0.5, -0.2, 0.3, -1.4]), axis=None)
        Array([ 0.6, -0.6,  0.6, -0.6], dtype=float32)
    """
    _base.check_choice("scale_grad", scale_grad, get_args(ScaleGrad))
    latent = _base.check_latent(latent)
    latents = latent.astype(_base.compute_dtype(latent))
    ste = estimator(latents)
    sign = jax.lax.stop_gradient(ste)
    group = _base.group_axes(latents, axis)
    scale = _numerics.mean_magnitude(latents, group)
    fixed = jax.lax.stop_gradient(scale)
    if scale_grad == "exact":
        weight = scale * ste
    elif scale_grad == "constant":
        weight = fixed * ste
    elif scale_grad == "detached":
        weight = fixed * sign + _gradient_of(ste)
    else:
        group_size = latents.size // max(scale.size, 1)
        weight = fixed * ste + _gradient_of(latents) / max(group_size, 1)
    return weight.astype(latent.dtype)


def _gradient_of(x: jax.Array) -> jax.Array:
    """Zero, with the gradient of x."""
    return x - jax.lax.stop_gradient(x)
