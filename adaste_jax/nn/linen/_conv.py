"""Convolutions."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from adaste_jax.nn import _conv, _padding
from adaste_jax.nn.linen import _base


class BinaryConv(_base.BinaryProduct, nn.Conv, kw_only=True):
    """`nn.Conv` with a binary kernel; the bias stays real.

    It works in one, two or three dimensions, by the length of `kernel_size`; grouped
    and depthwise with `feature_group_count`. It takes the fields of `nn.Conv`, and
    these by keyword.

    Attributes:
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
        conv_general_dilated: As in `nn.Conv`. Default: that of the package
            `adaste-jax-cpu` where it is installed, else JAX's.

    Raises:
        ValueError: When called, if a `padding_value` other than 0 is combined with an
            unsupported `padding` or with `input_dilation`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> layer = linen.BinaryConv(
        ...     8,
        ...     kernel_size=(3, 3),
        ...     estimator=estimators.ste_clipped,
        ...     input_estimator=estimators.ste_clipped,
        ...     padding_value=1.0,
        ... )
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 6, 6, 2)))
        >>> jax.tree.map(jnp.shape, variables)
        {'params': {'bias': (8,), 'kernel': (3, 3, 2, 8)}}
        >>> layer.apply(variables, jnp.ones((1, 6, 6, 2))).shape
        (1, 6, 6, 8)
    """

    padding_value: float = 0.0
    conv_general_dilated: Callable[..., Any] | None = _conv.conv_general_dilated

    @nn.nowrap
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the layer to inputs of shape [..., *spatial, in]."""
        if self.padding_value == 0 or self.scope is None:  # not bound: Flax explains
            return super().__call__(inputs)
        inputs = self._estimate_inputs(inputs)
        size = self.kernel_size
        padded = _padding.pad(
            inputs,
            self.padding_value,
            kernel_size=(size,) if isinstance(size, int) else size,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
        )
        # The same layer, on the same variables, for inputs that are padded already.
        layer = self.clone(parent=self.scope.rewound(), padding="VALID")
        return nn.Conv.__call__(layer, padded)


class BinaryConvTranspose(_base.BinaryProduct, nn.ConvTranspose, kw_only=True):
    """`nn.ConvTranspose` with a binary kernel; the bias stays real.

    It takes the fields of `nn.ConvTranspose`, and these by keyword. There is no
    `padding_value`: with strides there are zeros between the inputs anyway.

    Attributes:
        estimator: Map from the latent kernel to the kernel used in the product.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature.
        input_estimator: Map from inputs to binary inputs.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> layer = linen.BinaryConvTranspose(
        ...     8, (3, 3), strides=(2, 2), estimator=estimators.ste_clipped
        ... )
        >>> outputs, variables = layer.init_with_output(
        ...     jax.random.key(0), jnp.ones((1, 6, 6, 2))
        ... )
        >>> outputs.shape, variables["params"]["kernel"].shape
        ((1, 12, 12, 8), (3, 3, 2, 8))
    """

    @nn.nowrap
    def _output_axes(self) -> tuple[int, ...]:
        return (-2,) if self.transpose_kernel else (-1,)
