"""AdaSTE's weights in units of the layer: few passes over a kernel, and no division.

The map is |w*| of `_adaste_rule`. In units of the layer it is a line of |t| that ends
at 1, whose numbers are computed once for a kernel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adaste_jax import _numerics
from adaste_jax.estimators import _adaste_rule


def magnitude(
    latents: jax.Array,
    mu: jax.Array,
    alpha: jax.Array,
    *,
    unit: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None,
    rescale: bool,
) -> jax.Array:
    """Magnitudes of the weights, never zero.

    Args:
        latents: Latents of dtype float32 or float64, any shape.
        mu: Annealing weight.
        alpha: Margin.
        unit: From the latents to a power of two, and their unit times it; None is 1.
        rescale: Whether the magnitudes are divided by their mean.
    """
    one = jnp.ones((), latents.dtype)
    line = _line(unit(latents) if unit else (one, one), mu, alpha)
    weight = _on_line(latents, line)
    if not (rescale and latents.size):
        return weight
    # Behind a barrier the mean is of magnitudes that nothing else needs, and XLA
    # computes them while it sums: three reads of a kernel and one write. Without it the
    # CPU writes them out, and reads them again: five and two (jax 0.10.2).
    mean = jnp.mean(_on_line(*_barrier((latents, line))))
    return weight * jnp.where(_adaste_rule.is_binary(mu, alpha), one, 1 / mean)


_barrier: Callable[[Any], Any] = jax.lax.optimization_barrier


class _Line(NamedTuple):
    """|w*(t / unit)| as a line of |t|; see `_on_line`.

    Attributes:
        scale: 1; a power of two where latents are so large or small that their unit has
            no inverse.
        slope: 1 / (1 + mu) / (unit scale); 0 where weights are binary.
        offset: mu (1 + alpha) / (1 + mu), never zero; 1 where weights are binary.
        top: 1, where the line ends.
        largest: The largest finite number, which stands for an infinite latent.
    """

    scale: jax.Array
    slope: jax.Array
    offset: jax.Array
    top: jax.Array
    largest: jax.Array


def _line(
    scaled_unit: tuple[jax.Array, jax.Array], mu: jax.Array, alpha: jax.Array
) -> _Line:
    """|w*(t / unit)|, such that no latent has to be divided.

    Args:
        scaled_unit: A power of two, and the unit times it.
        mu: Annealing weight.
        alpha: Margin.
    """
    scale, unit = scaled_unit
    one = jnp.ones((), unit.dtype)
    binary = _adaste_rule.is_binary(mu, alpha)
    offset = jnp.maximum(mu * (1 + alpha) / (1 + mu), _numerics.tiny(unit.dtype))
    return _Line(
        scale=scale,
        slope=jnp.where(binary, jnp.zeros_like(one), 1 / (1 + mu) / unit),
        offset=jnp.where(binary, one, offset),
        top=one,
        largest=jnp.asarray(_numerics.largest(unit.dtype), unit.dtype),
    )


def _on_line(latent: jax.Array, line: _Line) -> jax.Array:
    """|w*(t / unit)| = min(1, slope |t| + offset), never zero."""
    size = jnp.minimum(jnp.abs(latent), line.largest) * line.scale
    return jnp.minimum(size * line.slope + line.offset, line.top)
