"""A Linen module as a pure function, for programs that train it."""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
from flax import linen as nn

from adaste_jax.nn._hyperparameters import HYPERPARAMETERS


def functional(
    module: nn.Module, *, axis_name: Hashable | tuple[Hashable, ...] | None = None
) -> Callable[..., tuple[Any, Any]]:
    """A Linen module as a pure function of parameters and state.

    `params` is `variables["params"]` and `model_state` the dict of all other
    collections, often `{}`. In training all of them may change but "hyperparameters".

    Args:
        module: Its `__call__` takes the inputs and a keyword `train`.
        axis_name: Mapped axes over which every batch norm of the module averages its
            statistics in training, for `jax.shard_map` and `jax.pmap`, which see the
            share of one device: `train.DATA_AXIS` for the steps of `train`. The module
            need not know. Under `jax.jit` leave it out.

    Returns:
        `forward(params, model_state, inputs, *, train, key)`, which returns the outputs
        and the new `model_state`. `key` is for dropout; without dropout it is None.

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
                train=train,
                rngs=None if key is None else {"dropout": key},
                mutable=changing if train else [],
            )
        return outputs, {**model_state, **changed}

    return forward


def _average_over(axis_name, call, args, kwargs, context):
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
