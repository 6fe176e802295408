"""Embeddings."""

from typing import Any, ClassVar

import jax
from flax import nnx

from adaste_jax.nn.nnx import _base


class BinaryEmbed(_base.Binary, nnx.Embed):
    """`nnx.Embed` with binary embeddings.

    It takes the arguments of `nnx.Embed`, and these by keyword. Each call of the layer
    or of `attend` estimates the table again. Tied embeddings (lookup and `attend` in
    one loss) need `adaste_jax.binarize` if the rule is not additive.

    The parameter is called `embedding`, which `adaste_jax.kernels` does not select:
    `adaste_jax.deploy`, `export.save` and the like need
    `where=("kernel", "embedding")`.

    Args:
        estimator: Map from the latent table to the table that is looked up, both of
            shape [num_embeddings, features].
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values.
        use_scale: Whether the table is multiplied by a learned factor per feature:
            an extra parameter `scale` of shape [features], ones at first.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> layer = layers.BinaryEmbed(
        ...     256, 4, estimator=estimators.ste_clipped, rngs=nnx.Rngs(0)
        ... )
        >>> layer.embedding.shape, layer(jnp.array([[7, 0, 255]])).shape
        ((256, 4), (1, 3, 4))
    """

    latent: ClassVar[str] = "embedding"

    def __call__(self, inputs: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """Looks up tokens of any shape; returns [..., features]."""
        return nnx.Embed.__call__(self._estimated(), inputs, *args, **kwargs)

    def attend(self, query: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """Products of a query [..., features] with all embeddings."""
        return nnx.Embed.attend(self._estimated(), query, *args, **kwargs)
