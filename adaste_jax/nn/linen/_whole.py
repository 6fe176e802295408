"""Layers with several kernels, each of which is estimated once per call."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from adaste_jax import _paths
from adaste_jax.nn.linen import _base


class _Whole(_base.Estimating, kw_only=True):
    """A Flax layer that estimates every kernel inside it, outside of its loops."""

    def setup(self) -> None:
        self._bound = self._values(jnp.float32)

    # Not wrapped by Flax, as in `BinaryProduct`.
    @nn.nowrap
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer; arguments are those of the layer it replaces."""
        if self.scope is None or self.is_initializing():
            return self._inherited(*args, **kwargs)
        values = self._bound
        found = []

        def weight(path: Any, leaf: jax.Array) -> jax.Array:
            if not _paths.is_kernel(path):
                return leaf
            found.append(path)
            return self.estimator(leaf, **values)

        call = nn.map_variables(
            _Whole._inherited,
            "params",
            lambda variables: jax.tree_util.tree_map_with_path(weight, variables),
        )
        outputs = call(self, *args, **kwargs)
        if not found:
            raise ValueError(
                f"no parameter of {type(self).__name__} is called `kernel`, so nothing "
                "is estimated. Use `adaste_jax.binarize` with a `where`."
            )
        return outputs

    @nn.nowrap
    def _inherited(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class BinaryMultiHeadAttention(_Whole, nn.MultiHeadAttention, kw_only=True):
    """`nn.MultiHeadAttention` with binary projections; biases stay real.

    It takes the fields of `nn.MultiHeadAttention`, and these by keyword. For a scale
    per feature or binary inputs build the projections of `BinaryDenseGeneral`.

    Attributes:
        estimator: Map from a latent kernel to the kernel used; it is called for each of
            the kernels `query`, `key`, `value` and `out`.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values; one set for the layer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> layer = linen.BinaryMultiHeadAttention(2, estimator=estimators.ste_clipped)
        >>> inputs = jnp.ones((1, 5, 6))
        >>> outputs, variables = layer.init_with_output(jax.random.key(0), inputs)
        >>> outputs.shape, variables["params"]["query"]["kernel"].shape
        ((1, 5, 6), (6, 2, 3))
    """


class BinaryRNN(_Whole, nn.RNN, kw_only=True):
    """`nn.RNN` with binary kernels in its cell; biases stay real.

    It takes the fields of `nn.RNN`, and these by keyword. The cell is one of Flax:
    `nn.LSTMCell`, `nn.OptimizedLSTMCell`, `nn.GRUCell`, ...

    Each kernel is estimated once, before the loop over time, so that the rule gets the
    gradient summed over all steps. A binary cell within `nn.RNN` would apply the rule
    in every step, which is a different gradient if the rule is not additive, so there
    is no such layer here. For a cell that you loop over yourself, `adaste_jax.binarize`
    its parameters before the loop.

    Attributes:
        estimator: Map from a latent kernel to the kernel used; it is called for each
            kernel of the cell.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values; one set for the layer.

    Raises:
        ValueError: When called, if no parameter of the cell is called `kernel`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import linen
        >>> from flax import linen as nn
        >>> layer = linen.BinaryRNN(nn.GRUCell(4), estimator=estimators.ste_clipped)
        >>> inputs = jnp.ones((1, 5, 3))  # [batch, time, features]
        >>> outputs, variables = layer.init_with_output(jax.random.key(0), inputs)
        >>> outputs.shape, variables["params"]["cell"]["iz"]["kernel"].shape
        ((1, 5, 4), (3, 4))
    """
