"""A learned factor for each output feature."""

from collections.abc import Sequence

import jax


def multiply(weight: jax.Array, scale: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Multiplies `weight` by `scale` along the given axes.

    Args:
        weight: Any shape.
        scale: The shape of `weight` along `axes`.
        axes: Ascending, counted from the end: -1 is the last.
    """
    shape = [
        size if axis in axes else 1
        for axis, size in zip(range(-weight.ndim, 0), weight.shape, strict=True)
    ]
    return weight * scale.reshape(shape)
