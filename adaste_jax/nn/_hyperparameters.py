"""New values for the hyperparameters that layers hold."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

HYPERPARAMETERS = "hyperparameters"
"""Name of the Linen collection that holds hyperparameters of estimators, and of the NNX
variable type that `nnx.bridge` maps to it."""


def check_names(new: Collection[str], existing: Collection[str]) -> None:
    """Checks that a layer has each of the names.

    Raises:
        ValueError: If a name of `new` is not in `existing`.
    """
    for name in new:
        if name not in existing:
            raise ValueError(
                f"no layer has a hyperparameter `{name}`. The names there are: "
                f"{sorted(existing)}."
            )


def like(value: ArrayLike, old: jax.Array) -> jax.Array:
    """`value` in the shape and dtype of `old`, so that nothing is compiled again."""
    return jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
