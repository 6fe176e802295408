"""Layers with several kernels, each of which is estimated once per call."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from adaste_jax.nn.nnx import _hyperparameters


class _Whole(nnx.Module):
    """A Flax layer that estimates every kernel inside it, outside of its loops."""

    def __init__(
        self,
        *args: Any,
        estimator: Callable[..., jax.Array],
        hyperparameters: Mapping[str, float] | None = None,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self.estimator = estimator
        self.hyperparameters = _hyperparameters.variables(hyperparameters, jnp.float32)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer; arguments are those of the layer it replaces."""
        return super(_Whole, self._estimated()).__call__(*args, **kwargs)

    def _estimated(self) -> "_Whole":
        """A copy with weights for kernels; it shares all other variables."""
        hyperparameters = _hyperparameters.read(self.hyperparameters)
        graphdef, state = nnx.split(self)
        found = []

        def weight(path: tuple[Any, ...], variable: Any) -> Any:
            if "kernel" not in path:
                return variable
            found.append(path)
            return variable.copy(self.estimator(variable[...], **hyperparameters))

        weights = nnx.map_state(weight, state)
        if not found:
            raise ValueError(
                f"no parameter of {type(self).__name__} is called `kernel`, so nothing "
                "is estimated. Use `adaste_jax.binarize` with a `where`."
            )
        return nnx.merge(graphdef, weights)


class BinaryMultiHeadAttention(_Whole, nnx.MultiHeadAttention):
    """`nnx.MultiHeadAttention` with binary projections; biases stay real.

    Takes the arguments of `nnx.MultiHeadAttention`, and these by keyword. For a scale
    per feature or binary inputs build the projections of `BinaryLinearGeneral`.

    Args:
        estimator: Map from a latent kernel to the kernel used; it is called for each of
            the kernels `query`, `key`, `value` and `out`.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values; one set for the layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> layer = layers.BinaryMultiHeadAttention(
        ...     2, 6, decode=False, estimator=estimators.ste_clipped, rngs=nnx.Rngs(0)
        ... )
        >>> layer.query.kernel.shape, layer(jnp.ones((1, 5, 6))).shape
        ((6, 2, 3), (1, 5, 6))
    """


class BinaryRNN(_Whole, nnx.RNN):
    """`nnx.RNN` with binary kernels in its cell; biases stay real.

    Takes the arguments of `nnx.RNN`, and these by keyword. The cell is one of Flax:
    `nnx.LSTMCell`, `nnx.OptimizedLSTMCell`, `nnx.GRUCell`, ...

    Each kernel is estimated once, before the loop over time, so that the rule gets the
    gradient summed over all steps. A binary cell within `nnx.RNN` would apply the rule
    in every step, which is a different gradient if the rule is not additive, so there
    is no such layer here. For a cell that you loop over yourself, `adaste_jax.binarize`
    its state before the loop.

    Args:
        estimator: Map from a latent kernel to the kernel used; it is called for each
            kernel of the cell.
        hyperparameters: Keyword arguments of `estimator` that change during training,
            with their first values; one set for the layer.

    Raises:
        ValueError: When called, if no parameter of the cell is called `kernel`.

    Example:
        >>> import jax.numpy as jnp
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
        >>> layer = layers.BinaryRNN(cell, estimator=estimators.ste_clipped)
        >>> layer(jnp.ones((1, 5, 3))).shape  # [batch, time, features]
        (1, 5, 4)
    """
