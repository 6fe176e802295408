"""Matrix products."""

from flax import linen as nn

from adaste_jax.nn.linen import _base


class BinaryDense(_base.BinaryProduct, nn.Dense, kw_only=True):
    """`nn.Dense` with a binary kernel; the bias stays real.

    It takes the fields of `nn.Dense`, and these by keyword.

    Attributes:
        estimator: Map from the latent kernel, in `param_dtype`, to the kernel used in
            the product, which is cast to `dtype` afterwards. There is no default, so
            that the choice is visible.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values. Each is a variable in the collection
            "hyperparameters" of this layer, so that changing it by
            `set_hyperparameters` does not recompile. Bind constant arguments to the
            estimator by `functools.partial`.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature: an extra parameter `scale` of shape [features], ones at first.
        input_estimator: Map from inputs to the inputs used in the product, for binary
            activations; `estimators.ste_clipped` is usual.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> layer = linen.BinaryDense(
        ...     4, estimator=estimators.adaste, hyperparameters={"mu": 0.01}
        ... )
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (4,), 'kernel': (3, 4)}
        >>> variables = linen.set_hyperparameters(variables, mu=100.0)
        >>> layer.apply(variables, jnp.array([1.0, 2.0, 4.0])) % 2  # weights +1, -1
        Array([1., 1., 1., 1.], dtype=float32)
    """


class BinaryDenseGeneral(_base.BinaryProduct, nn.DenseGeneral, kw_only=True):
    """`nn.DenseGeneral` with a binary kernel; the bias stays real.

    A product over several axes, or to several: the projections of attention. Takes the
    fields of `nn.DenseGeneral`, and these by keyword.

    Attributes:
        estimator: Map from the latent kernel to the kernel used in the product, both of
            shape [*batch, *in, *features].
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the kernel is multiplied by a learned factor per output
            feature; `scale` has the shape [*features].
        input_estimator: Map from inputs to binary inputs.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> heads = linen.BinaryDenseGeneral((2, 4), estimator=estimators.ste_clipped)
        >>> variables = heads.init(jax.random.key(0), jnp.ones((5, 3)))
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (2, 4), 'kernel': (3, 2, 4)}
        >>> heads.apply(variables, jnp.ones((5, 3))).shape
        (5, 2, 4)
    """

    @nn.nowrap
    def _output_axes(self) -> tuple[int, ...]:
        number = 1 if isinstance(self.features, int) else len(self.features)
        return tuple(range(-number, 0))
