"""What shares a scale or a unit: the layer, an output, or some inputs of an output."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from adaste_jax import _numerics, estimators
from adaste_jax.estimators import _base
from adaste_jax.methods._method import Scales, by_channel, by_tensor, check

Map = Callable[..., jax.Array]
"""From the latents of one leaf to its weights."""


def in_groups(weights: Map, group: int, scales: Scales) -> tuple[Map, Scales]:
    """A map and its number of scales; for groups of inputs if `group` is not 0.

    Raises:
        ValueError: If `group` is negative.
    """
    check(group >= 0, "group", group, "at least 0")
    if not group:
        return weights, scales
    by_group = lambda shape: math.prod(shape) // group
    return estimators.per_group(weights, group), by_group


def scaled(weights: Map, unit: str, group: int) -> tuple[Map, Scales]:
    """A map with a scale for each channel, for the whole layer, or for groups.

    Args:
        weights: Map with one scale for each channel, and an option `axis`, of which
            None is one scale for all.
        unit: `"channel"` or `"layer"`.
        group: Number of inputs of an output that share a scale, or 0.

    Returns:
        The map, and its number of scales.

    Raises:
        ValueError: If the unit is unknown, or is the layer where there are groups.
    """
    _base.check_choice("unit", unit, ("channel", "layer"))
    alone = unit == "channel" or not group
    check(alone, "unit", unit, '"channel" where `group` is given')
    if unit == "layer":
        return functools.partial(weights, axis=None), by_tensor
    return in_groups(weights, group, by_channel)


def of(weights: Map, unit: str) -> Map:
    """A map in units of the layer, or one that looks at each output alone.

    Raises:
        ValueError: If the unit is unknown.
    """
    _base.check_choice("unit", unit, ("layer", "channel"))
    if unit == "layer":
        return weights

    def by_output(latent: jax.Array, **hyper: Any) -> jax.Array:
        alone = functools.partial(weights, **hyper)
        return jax.vmap(alone, in_axes=-1, out_axes=-1)(latent)

    return by_output


def in_rms(weights: Map, unit: str) -> Map:
    """A straight-through map of latents, or of latents over their root mean square.

    Raises:
        ValueError: If the unit is unknown.
    """
    _base.check_choice("unit", unit, ("absolute", "layer", "channel"))
    if unit == "absolute":
        return weights

    def divided(latent: jax.Array, **hyper: Any) -> jax.Array:
        fixed = jax.lax.stop_gradient(latent)
        wide = fixed.astype(_base.compute_dtype(latent))
        units = (wide / _numerics.root_mean_square(wide)).astype(latent.dtype)
        # The units, with the gradient of the latents.
        return weights(jax.lax.stop_gradient(units) + (latent - fixed), **hyper)

    return of(divided, unit)
