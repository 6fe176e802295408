"""Convolutions."""

from typing import Any

import jax
from flax import nnx

from adaste_jax.nn import _conv, _padding
from adaste_jax.nn.nnx import _base


class BinaryConv(_base.BinaryProduct, nnx.Conv):
    """`nnx.Conv` with a binary kernel; the bias stays real.

    It works in one, two or three dimensions, by the length of `kernel_size`; grouped
    and depthwise with `feature_group_count`. It takes the arguments of `nnx.Conv`, and
    these by keyword.

    Args:
        estimator: Map from the latent kernel to the kernel used in the product.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature.
        input_estimator: Map from inputs to binary inputs.
        padding_value: Number that the inputs are padded with, after `input_estimator`.
            With binary activations, 1 or -1 keeps them binary. If it is not 0,
            `padding` must be "SAME", "SAME_LOWER", "VALID", a number or pairs of
            numbers.
        conv_general_dilated: As in `nnx.Conv`. Default: that of the package
            `adaste-jax-cpu` where it is installed, else JAX's.

    Raises:
        ValueError: When called, if a `padding_value` other than 0 is combined with an
            unsupported `padding` or with `input_dilation`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> layer = layers.BinaryConv(
        ...     2,
        ...     8,
        ...     kernel_size=(3, 3),
        ...     estimator=estimators.ste_clipped,
        ...     input_estimator=estimators.ste_clipped,
        ...     padding_value=1.0,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer.kernel.shape
        (3, 3, 2, 8)
        >>> layer(jnp.ones((1, 6, 6, 2))).shape
        (1, 6, 6, 8)
    """

    def __init__(self, *args: Any, padding_value: float = 0.0, **options: Any):
        options.setdefault("conv_general_dilated", _conv.conv_general_dilated)
        super().__init__(*args, **options)
        self.padding_value = padding_value

    def _padded(self, layer: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        if self.padding_value == 0:
            return layer, inputs
        padded = _padding.pad(
            inputs,
            self.padding_value,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
        )
        return _base.replaced(layer, padding="VALID"), padded


class BinaryConvTranspose(_base.BinaryProduct, nnx.ConvTranspose):
    """`nnx.ConvTranspose` with a binary kernel; the bias stays real.

    It takes the arguments of `nnx.ConvTranspose`, and these by keyword. There is no
    `padding_value`: with strides there are zeros between the inputs anyway.

    Args:
        estimator: Map from the latent kernel to the kernel used in the product.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature.
        input_estimator: Map from inputs to binary inputs.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> layer = layers.BinaryConvTranspose(
        ...     2,
        ...     8,
        ...     (3, 3),
        ...     strides=(2, 2),
        ...     estimator=estimators.ste_clipped,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer.kernel.shape, layer(jnp.ones((1, 6, 6, 2))).shape
        ((3, 3, 2, 8), (1, 12, 12, 8))
    """

    def _output_axes(self) -> tuple[int, ...]:
        return (-2,) if self.transpose_kernel else (-1,)
