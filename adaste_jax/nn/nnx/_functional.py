"""Turns an NNX module into a pure function, for training programs."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from flax import nnx

_State: TypeAlias = nnx.State[Any, Any]


def functional(
    model: nnx.Module,
) -> tuple[Callable[..., tuple[Any, Any]], _State, _State]:
    """Turns an NNX module into a pure function of parameters and state.

    `params` are the variables of type `nnx.Param`, `model_state` all others: running
    averages, hyperparameters, random streams.

    Args:
        model: The module. Its `__call__` takes the inputs. `model.train()` and
            `model.eval()` switch its parts, such as `nnx.Dropout` and `nnx.BatchNorm`,
            between training and evaluation.

    Returns:
        `(forward, params, model_state)` with
        `forward(params, model_state, inputs, *, train, key)`, which returns the outputs
        and the new `model_state`; in evaluation the state does not change. All random
        streams of the module start from `key`, or continue from `model_state` if it is
        None. `model` does not change.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(
        ...     nnx.Linear(3, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)
        ... )
        >>> forward, params, state = functional(model)
        >>> inputs = jnp.ones((4, 3))
        >>> outputs, state = forward(params, state, inputs, train=True, key=None)
        >>> outputs.shape, len(jax.tree.leaves(state))
        ((4, 2), 2)
    """
    # Variables are shared by reference: without the copies here and in `merge`, a call
    # would change the state it is given.
    model = nnx.clone(model)
    graphdef = nnx.graphdef(model)
    streams = sorted(
        {
            node.key.tag
            for _, node in nnx.iter_graph(model)
            if isinstance(node, nnx.RngStream)
        }
    )

    def forward(
        params: _State,
        model_state: _State,
        inputs: Any,
        *,
        train: bool,
        key: jax.Array | None,
    ) -> tuple[Any, _State]:
        network = nnx.merge(graphdef, params, model_state, copy=True)
        if train:
            network.train()
        else:
            network.eval()
        if key is not None and streams:
            keys = jax.random.split(key, len(streams))
            nnx.reseed(
                network, policy="match_shape", **dict(zip(streams, keys, strict=True))
            )
        outputs = network(inputs)
        return outputs, _all_but_params(network) if train else model_state

    return forward, nnx.state(model, nnx.Param), _all_but_params(model)


def _all_but_params(model: nnx.Module) -> _State:
    return nnx.state(model, nnx.Not(nnx.Param))
