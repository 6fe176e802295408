"""Layers of Linen in a model of NNX and the reverse, and what NNX shows of its own."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from adaste_jax import estimators
from adaste_jax.nn import linen
from adaste_jax.nn import nnx as layers

TANH = {"estimator": estimators.tanh, "hyperparameters": {"beta": 0.5}}
INPUTS = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def _rngs():
    return nnx.Rngs(0)


class LinenNetwork(nn.Module):
    """Two binary layers, one of them a step below."""

    @nn.compact
    def __call__(self, inputs):
        body = nn.Sequential([linen.BinaryDense(5, **TANH), nn.relu])
        return linen.BinaryDense(2, use_scale=True, **TANH)(body(inputs))


class NnxNetwork(nnx.Module):
    """The same, of NNX."""

    def __init__(self, *, rngs):
        self.body = layers.BinaryLinear(3, 5, rngs=rngs, **TANH)
        self.head = layers.BinaryLinear(5, 2, use_scale=True, rngs=rngs, **TANH)

    def __call__(self, inputs):
        return self.head(nnx.relu(self.body(inputs)))


def test_linen_layers_in_an_nnx_model_are_annealed():
    model = nnx.bridge.ToNNX(LinenNetwork(), rngs=_rngs()).lazy_init(INPUTS)
    variables = LinenNetwork().init(jax.random.key(0), INPUTS)
    variables["params"] = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for beta in (0.5, 3.0):
        layers.set_hyperparameters(model, beta=beta)
        variables = linen.set_hyperparameters(variables, beta=beta)
        expected = LinenNetwork().apply(variables, INPUTS)
        np.testing.assert_allclose(nnx.jit(lambda m: m(INPUTS))(model), expected)
    found = jax.tree.leaves(nnx.state(model, layers.Hyperparameter))
    assert [float(beta) for beta in found] == [3.0, 3.0]
    with pytest.raises(ValueError, match=r"`mu`.*\['beta'\]"):
        layers.set_hyperparameters(model, mu=1.0)


def test_a_state_of_bridged_layers_is_annealed_as_a_training_step_does():
    model = nnx.bridge.ToNNX(LinenNetwork(), rngs=_rngs()).lazy_init(INPUTS)
    forward, params, state = layers.functional(model)
    call = functools.partial(forward, train=True, key=None)
    before, _ = call(params, state, INPUTS)
    state = layers.set_hyperparameters(state, beta=50.0)
    after, kept = call(params, state, INPUTS)
    assert np.abs(after - before).max() > 0.01
    assert float(jax.tree.leaves(nnx.state(kept, layers.Hyperparameter))[0]) == 50.0


def test_nnx_layers_in_a_linen_model_are_annealed():
    module = nnx.bridge.to_linen(NnxNetwork)
    variables = module.init(jax.random.key(0), INPUTS)
    assert set(variables) >= {"params", "hyperparameters"}
    model = NnxNetwork(rngs=_rngs())
    nnx.update(model, nnx.State(variables["params"]))
    for beta in (0.5, 3.0):
        layers.set_hyperparameters(model, beta=beta)
        variables = linen.set_hyperparameters(variables, beta=beta)
        np.testing.assert_allclose(module.apply(variables, INPUTS), model(INPUTS))


def test_the_type_is_known_before_the_first_layer_is_bridged():
    """Also where only the Linen layers were imported when the model was made."""
    code = """
import jax.numpy as jnp
from flax import nnx
from adaste_jax import estimators
from adaste_jax.nn import linen
layer = linen.BinaryDense(2, estimator=estimators.tanh, hyperparameters={"beta": 1.0})
x = jnp.ones((1, 3))
model = nnx.bridge.ToNNX(layer, rngs=nnx.Rngs(0)).lazy_init(x)
before = model(x)
from adaste_jax.nn.nnx import set_hyperparameters
assert (set_hyperparameters(model, beta=9.0)(x) != before).any()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


IMAGES = jnp.ones((1, 6, 6, 2))
SHOWN = {
    "BinaryLinear": lambda: (layers.BinaryLinear(3, 2, rngs=_rngs(), **TANH), INPUTS),
    "BinaryLinearGeneral": lambda: (
        layers.BinaryLinearGeneral(3, (2, 2), rngs=_rngs(), **TANH),
        INPUTS,
    ),
    "BinaryConv": lambda: (
        layers.BinaryConv(2, 3, (3, 3), padding_value=1.0, rngs=_rngs(), **TANH),
        IMAGES,
    ),
    "BinaryConvTranspose": lambda: (
        layers.BinaryConvTranspose(2, 3, (3, 3), rngs=_rngs(), **TANH),
        IMAGES,
    ),
    "BinaryEmbed": lambda: (
        layers.BinaryEmbed(9, 4, rngs=_rngs(), **TANH),
        jnp.array([[7, 0, 2]]),
    ),
    "BinaryMultiHeadAttention": lambda: (
        layers.BinaryMultiHeadAttention(2, 6, decode=False, rngs=_rngs(), **TANH),
        jnp.ones((1, 5, 6)),
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_nnx_makes_a_table_of_every_layer(name):
    """Beside one of Flax, whose methods it replaces meanwhile; and all works after."""
    layer, inputs = SHOWN[name]()
    plain = nnx.Linear(layer(inputs).shape[-1], 2, rngs=_rngs())
    model = nnx.Sequential(layer, plain)
    before = model(inputs)
    for compute_flops in (False, True):
        table = nnx.tabulate(
            model,
            inputs,
            compute_flops=compute_flops,
            console_kwargs={"width": 240},
        )
        assert "Binary" in table
        assert "Hyperparameter" in table
    np.testing.assert_array_equal(model(inputs), before)


def _recurrent():
    cell = nnx.GRUCell(3, 4, rngs=_rngs())
    return layers.BinaryRNN(cell, **TANH), jnp.ones((1, 5, 3))


@pytest.mark.parametrize("name", [*SHOWN, "BinaryRNN"])
def test_nnx_displays_every_layer(name, capsys):
    layer, inputs = SHOWN[name]() if name in SHOWN else _recurrent()
    before = layer(inputs)
    nnx.display(layer)
    assert name in capsys.readouterr().out
    assert "beta" in repr(layer)
    np.testing.assert_array_equal(layer(inputs), before)
