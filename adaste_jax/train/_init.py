"""The state before the first step, of any network and method."""

from typing import Any

import jax
import jax.numpy as jnp

from adaste_jax import methods
from adaste_jax.train import _network, _state


def init(
    network: Any,
    method: methods.Method,
    inputs: Any,
    *,
    key: jax.Array | None = None,
    params: Any = None,
    model_state: Any = None,
    trained: bool = False,
) -> _state.TrainState:
    """The state that training starts from.

    Args:
        network: A Linen module, an NNX module, or a function; see `make_train_step`.
        method: The training method, which says where latents start.
        inputs: Inputs of the network, [examples, ...]; only shape and dtype of the
            first one matter. A function and an NNX module do not need inputs: pass
            None.
        key: PRNG key of the run. Default: `jax.random.key(0)`.
        params: Parameters to start from. Default: the initial parameters of the module.
            Required for a function.
        model_state: Model state to start from. Default: that of the module; none for a
            function.
        trained: Whether `params` are those of a trained network, whose signs the
            latents keep.

    Returns:
        The state. For a Linen module `params` are those of its `init`, and
        `model_state` has all other collections; for an NNX module both are an
        `nnx.State`.

    Raises:
        TypeError: If a function comes without `params`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from adaste_jax import methods, train
        >>> network = nn.Dense(2)
        >>> state = train.init(network, methods.ste(steps=10), jnp.ones((8, 3)))
        >>> state.params["kernel"].shape, state.model_state
        ((3, 2), {})
    """
    key = jax.random.key(0) if key is None else key
    network_key, latent_key, run_key = jax.random.split(key, 3)
    if params is None or model_state is None:
        drawn = _network.draw(network, network_key, inputs)
        if drawn is None and params is None:
            raise TypeError(
                "a network that is a function does not draw parameters: pass `params=`,"
                " and `model_state=` if it has a state."
            )
        if drawn is not None:
            params = drawn.params if params is None else params
            model_state = drawn.model_state if model_state is None else model_state
    # Steps donate their state, and these arrays belong to the caller.
    params, model_state = jax.tree.map(jnp.copy, (params, model_state))
    return _state.TrainState.create(
        method.init(latent_key, params, trained=trained),
        method.tx,
        key=run_key,
        model_state=model_state,
    )
