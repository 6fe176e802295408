"""The collection of variables for hyperparameters of layers, and how to set it."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.typing import ArrayLike

from adaste_jax.nn import _hyperparameters


def set_hyperparameters(
    variables: Mapping[str, Any], **values: ArrayLike
) -> dict[str, Any]:
    """Sets hyperparameters to new values, in every layer that has them.

    Shapes and dtypes stay, so a compiled step is not compiled again. It works inside
    `jit` too.

    Args:
        variables: The variables of a module, with or without "params".
        **values: New values by name, each a scalar or an array that broadcasts to the
            variable (layers stacked by `nn.scan` have one entry per layer, unless
            "hyperparameters" is broadcast). May be traced.

    Returns:
        A copy of `variables` in which the collection "hyperparameters" is changed.

    Raises:
        ValueError: If no layer has a hyperparameter of that name.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = {"hyperparameters": {"body": {"mu": jnp.float32(0.01)}}}
        >>> set_hyperparameters(variables, mu=1.0)
        {'hyperparameters': {'body': {'mu': Array(1., dtype=float32)}}}
    """
    collection = variables.get(_hyperparameters.HYPERPARAMETERS, {})
    leaves = jax.tree_util.tree_leaves_with_path(collection)
    _hyperparameters.check_names(values, {_name(path) for path, _ in leaves})

    def new(path: tuple[Any, ...], old: jax.Array) -> jax.Array:
        name = _name(path)
        return _hyperparameters.like(values[name], old) if name in values else old

    changed = jax.tree_util.tree_map_with_path(new, collection)
    return (
        {**variables, _hyperparameters.HYPERPARAMETERS: changed}
        if values
        else dict(variables)
    )


def _name(path: tuple[Any, ...]) -> str:
    """The last key; in a box of metadata the number itself lies a step below."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return str(keys[-1])
