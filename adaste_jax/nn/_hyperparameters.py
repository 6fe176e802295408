"""New values for the hyperparameters that layers keep."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

HYPERPARAMETERS = "hyperparameters"
"""Linen's collection of variables that hold the hyperparameters of estimators, and the
name of the type of NNX's by which `nnx.bridge` knows them."""


def check_names(new: Collection[str], existing: Collection[str]) -> None:
    """Refuses names that no layer has.

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
