"""Turns a Linen module into a pure function, for training programs."""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
from flax import linen as nn

from adaste_jax.nn._hyperparameters import HYPERPARAMETERS


def functional(
    module: nn.Module, *, axis_name: Hashable | tuple[Hashable, ...] | None = None
) -> Callable[..., tuple[Any, Any]]:
    """Turns a Linen module into a pure function of parameters and state.

    `params` is `variables["params"]` and `model_state` the dict of all other
    collections, often `{}`. In training all collections except "hyperparameters" may
    change.

    Args:
        module: The module. Its `__call__` takes the inputs, and a keyword `train` if it
            behaves differently in training.
        axis_name: Mapped axes over which every batch norm of the module averages its
            statistics in training. It is needed for `jax.shard_map` and `jax.pmap`,
            which see the part of one device; the steps of `train` use
            `train.DATA_AXIS`. Under `jax.jit` leave it out.

    Returns:
        `forward(params, model_state, inputs, *, train, key)`, which returns the outputs
        and the new `model_state`. `key` is for dropout; without dropout it is None.

    Raises:
        TypeError: If `__call__` uses another keyword than `train` for this, such as
            `deterministic`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> class Network(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, inputs, *, train):
        ...         hidden = nn.BatchNorm(use_running_average=not train)(inputs)
        ...         return nn.Dense(2)(hidden)
        >>> network, inputs = Network(), jnp.ones((4, 3))
        >>> variables = network.init(jax.random.key(0), inputs, train=False)
        >>> params = variables.pop("params")
        >>> forward = functional(network)
        >>> outputs, state = forward(params, variables, inputs, train=True, key=None)
        >>> outputs.shape, list(state)
        ((4, 2), ['batch_stats'])
    """
    keywords(module, train=False)  # refuses a module now

    def forward(
        params: Any,
        model_state: Mapping[str, Any],
        inputs: Any,
        *,
        train: bool,
        key: jax.Array | None,
    ) -> tuple[Any, dict[str, Any]]:
        changing = [name for name in model_state if name != HYPERPARAMETERS]
        with nn.intercept_methods(functools.partial(_average_over, axis_name)):
            outputs, changed = module.apply(
                {"params": params, **model_state},
                inputs,
                **keywords(module, train=train),
                rngs=None if key is None else {"dropout": key},
                mutable=changing if train else [],
            )
        return outputs, {**model_state, **changed}

    return forward


def keywords(module: nn.Module, *, train: bool) -> dict[str, Any]:
    """The keywords that a module is called with."""
    return {"train": train} if _takes_train(module) else {}


def _takes_train(layer: Any) -> bool:
    """Whether the module is called with the keyword `train`."""
    if isinstance(layer, nn.Sequential):  # gives keywords to its first layer
        return bool(layer.layers) and _takes_train(layer.layers[0])
    try:
        call = type(layer).__call__ if isinstance(layer, nn.Module) else layer
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return False  # written in C, without a signature
    if "train" in parameters:
        return True
    if not isinstance(layer, nn.Module):
        return False  # an activation
    other = sorted(_OTHER_NAMES & parameters.keys())
    required = [n for n in other if parameters[n].default is inspect.Parameter.empty]
    own = not type(layer).__module__.startswith("flax.")
    if required or (other and own):
        raise TypeError(
            f"{type(layer).__name__}.__call__ has the keyword "
            f"{(required or other)[0]!r} and no `train`: give it a keyword `train`, "
            "or write a function "
            "forward(params, model_state, inputs, *, train, key) that calls it."
        )
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


_OTHER_NAMES = {"training", "is_training", "deterministic", "use_running_average"}


def _average_over(
    axis_name: Any, call: Any, args: Any, kwargs: Any, context: Any
) -> Any:
    """Gives a batch norm the axes of its statistics, if it has none of its own."""
    layer = context.module
    if (
        axis_name is None
        or not isinstance(layer, nn.BatchNorm)
        or context.method_name != "__call__"
        or layer.axis_name is not None
    ):
        return call(*args, **kwargs)
    # The same layer, on the same variables.
    assert layer.scope is not None
    named = layer.clone(parent=layer.scope.rewound(), axis_name=axis_name)
    return named(*args, **kwargs)
