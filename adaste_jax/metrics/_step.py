"""The shares of a step of training: before the update, and after it.

Of the latents before the update a bit each is kept, so that the update can be written
in their place.
"""

from typing import Any

import jax

from adaste_jax import _paths
from adaste_jax._numerics import sign
from adaste_jax.metrics import _count

NAMES = ("flip_rate", "saturated", "zero_gradient")
"""What a step reports of its latents."""

Before = tuple[list[jax.Array], jax.Array]
"""Signs of the leaves, and the saturated share."""


def before(params: Any, weights: Any, method: _paths.Method) -> Before:
    """What is measured before the update.

    Args:
        params: Latents.
        weights: What the network sees.
        method: How the network is trained.
    """
    where = method.where(params)
    signs = [sign(leaf) > 0 for leaf in _count.chosen(method.deploy(params), where)]
    if jax.device_count() == 1:  # else bits would have to be gathered
        signs = [_count.bits(positive) for positive in signs]
    chosen = _count.chosen(weights, where)
    return signs, _count.share(_count.saturated, chosen)


def after(
    before: Before, params: Any, grads: Any, method: _paths.Method
) -> dict[str, jax.Array]:
    """`flip_rate`, `saturated_share` and `zero_share`; NaN where one of them is NaN.

    Args:
        before: What `before` gave.
        params: Latents after the update.
        grads: Gradients of the latents.
        method: How the network is trained.

    Returns:
        The shares under `NAMES`.
    """
    where = method.where(params)
    signs, saturated = before
    shipped = _count.chosen(method.deploy(params), where)
    flips = _count.share(_count.flips, signs, shipped)
    zeros = _count.share(_count.zeros, _count.chosen(grads, where))
    shares = (flips, saturated, zeros)
    return dict(zip(NAMES, shares, strict=True))
