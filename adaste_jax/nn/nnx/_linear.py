"""Matrix products."""

from flax import nnx

from adaste_jax.nn.nnx import _base


class BinaryLinear(_base.BinaryProduct, nnx.Linear):
    """`nnx.Linear` with a binary kernel; the bias stays real.

    It takes the arguments of `nnx.Linear`, and these by keyword.

    Args:
        estimator: Map from the latent kernel, in `param_dtype`, to the kernel used in
            the product, which is cast to `dtype` afterwards. There is no default, so
            that the choice is visible.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values. Each is a `Hyperparameter` of this layer, so that
            changing it by `set_hyperparameters` does not recompile. Bind constant
            arguments to the estimator by `functools.partial`.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature: an extra parameter `scale` of shape [out_features], ones at first.
        input_estimator: Map from inputs to the inputs used in the product, for binary
            activations; `estimators.ste_clipped` is usual.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> layer = layers.BinaryLinear(
        ...     3,
        ...     4,
        ...     estimator=estimators.adaste,
        ...     hyperparameters={"mu": 0.01},
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer.kernel.shape
        (3, 4)
        >>> layer = layers.set_hyperparameters(layer, mu=100.0)
        >>> layer(jnp.array([1.0, 2.0, 4.0])) % 2  # weights are +1, -1
        Array([1., 1., 1., 1.], dtype=float32)
    """


class BinaryLinearGeneral(_base.BinaryProduct, nnx.LinearGeneral):
    """`nnx.LinearGeneral` with a binary kernel; the bias stays real.

    A product over several axes, or to several: the projections of attention. Takes the
    arguments of `nnx.LinearGeneral`, and these by keyword.

    Args:
        estimator: Map from the latent kernel to the kernel used in the product, both of
            shape [*batch, *in_features, *out_features].
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature; `scale` has the shape [*out_features].
        input_estimator: Map from inputs to binary inputs.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> heads = layers.BinaryLinearGeneral(
        ...     3, (2, 4), estimator=estimators.ste_clipped, rngs=nnx.Rngs(0)
        ... )
        >>> heads.kernel.shape, heads(jnp.ones((5, 3))).shape
        ((3, 2, 4), (5, 2, 4))
    """

    def _output_axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.out_features), 0))
