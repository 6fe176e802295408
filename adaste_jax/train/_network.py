"""Turns a network into a function: a Flax module is converted, a function is kept.

Flax is imported only if the network is a Flax module.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adaste_jax.train import _gradient


class Drawn(NamedTuple):
    """Initial parameters and state of a network."""

    params: Any
    model_state: Any


def forward_of(network: Any, *, axis_name: Any = None) -> _gradient.Forward:
    """The function that a step calls.

    Args:
        network: A Linen module, an NNX module, or a `Forward`.
        axis_name: Mapped axes for the batch norms of a Linen module.

    Raises:
        TypeError: If the network is none of these.
    """
    kind = _kind(network)
    forward: _gradient.Forward = network
    if kind == "linen":
        from adaste_jax.nn import linen

        forward = linen.functional(network, axis_name=axis_name)
    elif kind == "nnx":
        from adaste_jax.nn import nnx

        forward = nnx.functional(network)[0]
    else:
        _gradient.check_forward(network)
    return forward


def draw(network: Any, key: jax.Array, inputs: Any) -> Drawn | None:
    """Initial parameters and state of a Flax module; None for a function.

    Args:
        network: A Linen module, an NNX module, or a `Forward`.
        key: PRNG key for a Linen module. An NNX module already has its parameters.
        inputs: A few examples, for their shape.
    """
    kind = _kind(network)
    if kind == "nnx":
        from adaste_jax.nn import nnx

        return Drawn(*nnx.functional(network)[1:])
    if kind != "linen":
        return None
    import flax

    from adaste_jax.nn.linen import _functional

    params_key, dropout_key = jax.random.split(key)
    keys = {"params": params_key, "dropout": dropout_key}
    options = _functional.keywords(network, train=False)
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), inputs)
    shape = jax.eval_shape(lambda: example)
    try:  # without the outputs, which would be computed one operation at a time
        variables = dict(network.lazy_init(keys, shape, **options))
    except flax.errors.LazyInitError:  # parameters that depend on the inputs
        variables = dict(network.init(keys, example, **options))
    return Drawn(variables.pop("params"), variables)


def _kind(network: Any) -> str | None:
    """`"linen"` or `"nnx"`, by the module of the class; otherwise None."""
    for base in type(network).__mro__:
        for kind in ("linen", "nnx"):
            if f"{base.__module__}.".startswith(f"flax.{kind}."):
                return kind
    return None
