"""Embeddings."""

from typing import ClassVar

from flax import linen as nn

from adaste_jax.nn.linen import _base


class BinaryEmbed(_base.Binary, nn.Embed, kw_only=True):
    """`nn.Embed` with binary embeddings.

    It takes the fields of `nn.Embed`, and these by keyword. The table is estimated once
    for all calls of a bound layer, `__call__` and `attend`, so that the rule is applied
    to the sum of their gradients. So tied embeddings are right.

    The parameter is called `embedding`, which `adaste_jax.kernels` does not select:
    `adaste_jax.deploy`, `export.save` and the like need
    `where=("kernel", "embedding")`.

    Attributes:
        estimator: Map from the latent table to the table that is looked up, both of
            shape [num_embeddings, features].
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the table is multiplied by a learned factor per feature:
            an extra parameter `scale` of shape [features], ones at first.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> layer = linen.BinaryEmbed(256, 4, estimator=estimators.ste_clipped)
        >>> tokens = jnp.array([[7, 0, 255]])
        >>> outputs, variables = layer.init_with_output(jax.random.key(0), tokens)
        >>> outputs.shape, variables["params"]["embedding"].shape
        ((1, 3, 4), (256, 4))
    """

    latent: ClassVar[str] = "embedding"
