"""The variable type for hyperparameters of layers, and how to set them."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from adaste_jax.nn import _hyperparameters

_State: TypeAlias = nnx.State[Any, Any]
_Module = TypeVar("_Module", bound=nnx.Module)


class Hyperparameter(nnx.Variable[Any]):
    """A hyperparameter of an estimator, such as `mu`: traced, but not trained.

    `nnx.bridge` maps it to the collection "hyperparameters" of a Linen layer and back,
    so Linen layers in an NNX model, and the reverse, are annealed too.
    """


nnx.register_variable_name(
    _hyperparameters.HYPERPARAMETERS, Hyperparameter, overwrite=True
)


def variables(hyperparameters: Mapping[str, float] | None, dtype: Any) -> nnx.Dict[Any]:
    """The variables of a layer whose latents have this dtype."""
    dtype = jnp.promote_types(dtype, jnp.float32)
    return nnx.Dict(
        {
            name: Hyperparameter(jnp.asarray(number, dtype))
            for name, number in (hyperparameters or {}).items()
        }
    )


def read(hyperparameters: nnx.Dict[Any]) -> dict[str, jax.Array]:
    """The values of hyperparameters, as keyword arguments of an estimator."""
    return {
        name: variable[...]
        # Not `.items()`: `nnx.tabulate` replaces the methods of `nnx.Dict`.
        for name, variable in vars(hyperparameters).items()
        if isinstance(variable, Hyperparameter)  # `nnx.capture` adds what is none
    }


@overload
def set_hyperparameters(model: _State, **values: ArrayLike) -> _State: ...


@overload
def set_hyperparameters(model: _Module, **values: ArrayLike) -> _Module: ...


def set_hyperparameters(model: Any, **values: ArrayLike) -> Any:
    """Sets hyperparameters to new values, in every layer that has them.

    A module is changed in place, as by `nnx.update`; for a state a changed copy is
    returned. Shapes and dtypes stay, so a compiled step is not compiled again. It works
    inside `nnx.jit` and `jax.jit` too.

    Args:
        model: A module, or its state, such as the `model_state` of `functional`.
        **values: New values by name, each a scalar or an array that broadcasts to the
            variable (layers stacked by `nnx.vmap` have one entry per layer, unless
            `Hyperparameter` is broadcast). May be traced.

    Returns:
        The module, or the changed copy of the state.

    Raises:
        ValueError: If no layer has a hyperparameter of that name.

    Example:
        >>> from adaste_jax import estimators
        >>> from adaste_jax.nn import nnx as layers
        >>> layer = layers.BinaryLinear(
        ...     3,
        ...     4,
        ...     estimator=estimators.adaste,
        ...     hyperparameters={"mu": 0.01},
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> layer = layers.set_hyperparameters(layer, mu=1.0)
        >>> layer.hyperparameters["mu"][...]
        Array(1., dtype=float32)
    """
    if isinstance(model, nnx.State):
        return _changed(model, values)
    nnx.update(model, _changed(nnx.state(model, Hyperparameter), values))
    return model


def _changed(state: _State, values: Mapping[str, ArrayLike]) -> _State:
    names = {
        str(path[-1])
        for path, variable in nnx.to_flat_state(state)
        if isinstance(variable, Hyperparameter)
    }
    _hyperparameters.check_names(values, names)

    def new(path: tuple[Any, ...], variable: Any) -> Any:
        if not isinstance(variable, Hyperparameter) or path[-1] not in values:
            return variable
        return variable.copy(_hyperparameters.like(values[path[-1]], variable[...]))

    return nnx.map_state(new, state)
