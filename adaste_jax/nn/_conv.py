"""The convolution that layers call."""

from typing import Any

import jax

from adaste_jax import _native


def conv_general_dilated(*args: Any, **options: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated`, trained by oneDNN where that can be had.

    With the package `adaste-jax-cpu` on a CPU, a step of training computes outputs and
    both gradients by oneDNN; without it, and for what oneDNN does not do, this is JAX's
    function. It is the default of `BinaryConv`, and a field of other layers of Flax:
    `nn.Conv(..., conv_general_dilated=adaste_jax.nn.conv_general_dilated)`.

    Args:
        *args: Of `jax.lax.conv_general_dilated`.
        **options: Likewise.

    Returns:
        What it returns, up to the order of sums.

    Raises:
        TypeError: As it does.
        ValueError: As it does.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import nn
        >>> images, kernel = jnp.ones((1, 2, 5, 5)), jnp.ones((3, 2, 3, 3))
        >>> nn.conv_general_dilated(images, kernel, (1, 1), "VALID").shape
        (1, 3, 3, 3)
    """
    package = _native.find()
    function = jax.lax.conv_general_dilated
    if package is not None:
        function = package.conv_general_dilated
    outputs: jax.Array = function(*args, **options)
    return outputs
